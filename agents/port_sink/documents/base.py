"""The interface of documents, which are built from the newest rows just before they are sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from tallystream.streams.kafka.global_table import StoredRow

INVALID_ROWS = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError)
"""What `DocumentKind.build` may raise for rows that are not what they must be."""


class DocumentRows(Protocol):
    """Access to the local copy (streams.kafka.global_table)."""

    def get(self, key: bytes) -> StoredRow | None:
        """Return a row."""
        ...

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, StoredRow]]:
        """Iterate over the rows whose keys begin with `prefix`."""
        ...


@dataclass(frozen=True)
class LeftOutRecord:
    """A record that is not mapped: what it says in `field` cannot be used, for this reason. `place` is its index."""

    place: int
    record: Any
    field: str
    reason: str


@dataclass(frozen=True)
class Document:
    """The input of a mapping: one record, or several that are valid at the same time.

    `at_ms` is its time for the retention rule, or None if it is always kept. `order` decides between documents of one
    kind that give the same entity: the highest is used. `meta` is `$record`.
    """

    records: Sequence[Mapping[str, Any]]
    at_ms: int | None = None
    order: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)
    unusable: Sequence[LeftOutRecord] = ()
    """Records that are left out. Their entities stay in Port as they are."""


class DocumentKind(Protocol):
    """A kind of documents. Keys are bytes that mean something to the kind alone."""

    prefixes: tuple[bytes, ...]
    """Of the rows it is built from: one letter and a bar."""

    def key_for(self, row: bytes) -> bytes | None:
        """Return the key of the document a row is part of."""
        ...

    def keys(self, rows: DocumentRows) -> Iterator[bytes]:
        """Iterate over the keys of all documents."""
        ...

    def build(self, rows: DocumentRows, key: bytes) -> Document | None:
        """Return a document, None when there is nothing left of it."""
        ...


@runtime_checkable
class FanOut(Protocol):
    """A kind of which one row may change many documents."""

    def affected(self, rows: DocumentRows, row: bytes) -> Iterator[bytes]:
        """Yield the keys of the documents that a row changes."""
        ...
