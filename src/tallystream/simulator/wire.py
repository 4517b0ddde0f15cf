"""OTLP log records as byte templates, so that a fleet can be played faster than any gateway reads it.

A `Part` is encoded bytes with holes. A template is made of the parts of some records once a process; a session's
records are one `%` of bytes away from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

Value = str | int | bool | float | tuple[str, ...] | None
"""What an attribute can be; None is an AnyValue that holds nothing."""

# Holes that every record has for itself.
NS, ISO, HEAD, MARK = 0, 1, 2, 3
"""The record's time; the same as text (24 characters, ms); what opens the record, which tells its size in protobuf;
encoded attributes that number the record."""
OWN_HOLES = 4
# Holes that the records of a run share.
COMMON, TRACE, SPAN, EXTRA = 4, 5, 6, 7
"""The attributes every event of the session has; ids; the first hole a shape may use for itself."""


@dataclass(frozen=True)
class Hole:
    """An attribute value, or a body, filled in later with exactly `size` bytes of plain ASCII."""

    index: int
    size: int


Pair = tuple[str, Value | Hole]


class WirePart(NamedTuple):
    """Encoded bytes with holes: a `%b` format, the size once filled (but for holes of size 0), what fills each hole."""

    format: bytes
    size: int
    holes: tuple[int, ...] = ()


class WireRecord(NamedTuple):
    """What one record is. `traced` records carry a trace and a span id."""

    attributes: WirePart
    traced: bool
    name: str = ""
    """`eventName`: a place in the client's code, not what happened."""
    severity: tuple[int, str] = (9, "INFO")
    body: str | Hole | None = None


class WireScope(NamedTuple):
    """Who of the client speaks. A version of None is left out."""

    name: str
    version: str | None = None


def literal(data: bytes) -> WirePart:
    """Return bytes without holes."""
    return WirePart(data.replace(b"%", b"%%"), len(data))


def hole(index: int, size: int = 0) -> WirePart:
    """Return a hole of that size."""
    return WirePart(b"%b", size, (index,))


def concat(parts: Sequence[WirePart], separator: bytes = b"") -> WirePart:
    """Return the parts one after the other."""
    size = sum(part.size for part in parts) + len(separator) * max(0, len(parts) - 1)
    return WirePart(
        separator.join([part.format for part in parts]), size, tuple(i for part in parts for i in part.holes)
    )


class Template:
    """A run of records. Values are filled in in this order: each record's own ones, then the shared ones."""

    def __init__(self, parts: Sequence[WirePart], separator: bytes) -> None:
        count = len(parts)
        whole = concat(parts, separator)
        holes = [
            OWN_HOLES * k + index if index < OWN_HOLES else OWN_HOLES * (count - 1) + index
            for k, part in enumerate(parts)
            for index in part.holes
        ]
        self._format = whole.format
        self._pick: Callable[[Sequence[bytes]], tuple[bytes, ...]] = itemgetter(*holes)
        self.sizes = [part.size for part in parts]
        """Of each record without its head, `MARK`, `COMMON` and the extras of no size."""

    def render(self, values: Sequence[bytes]) -> bytes:
        """Return the records' bytes."""
        return self._format % self._pick(values)


class Wire(ABC):
    """One encoding of OTLP, as one exporter writes it."""

    content_type: str
    separator: bytes
    """Between records."""
    between: bytes
    """Between attributes."""

    @abstractmethod
    def pair(self, key: str, value: Value | Hole) -> WirePart:
        """Encode an attribute of a record."""

    @abstractmethod
    def attribute(self, key: str, value: Value) -> bytes:
        """Encode an attribute of a record without holes; this one has to be fast."""

    @abstractmethod
    def record(self, record: WireRecord) -> WirePart:
        """Encode a record with its holes."""

    @abstractmethod
    def head(self, size: int) -> bytes:
        """Return what fills `HEAD` of a record of that size."""

    @abstractmethod
    def time(self, ns: int) -> bytes:
        """Return what fills `NS`."""

    @abstractmethod
    def identifier(self, data: bytes) -> bytes:
        """Return what fills `TRACE` or `SPAN`."""

    @abstractmethod
    def resource(self, pairs: Sequence[tuple[str, Value]]) -> bytes:
        """Encode a resource."""

    @abstractmethod
    def logs(self, resource: bytes, scopes: Sequence[tuple[WireScope, Sequence[bytes]]]) -> bytes:
        """Return a request body: one resource, each scope's runs of records."""

    @abstractmethod
    def document(self, document: Mapping[str, object]) -> bytes:
        """Return the body of a metrics or traces request that is given as in OTLP/JSON."""

    def attributes(self, pairs: Sequence[Pair | WirePart]) -> WirePart:
        """Encode attributes of a record; a `Part` is a hole for some that come encoded, at least one."""
        parts = [pair if isinstance(pair, WirePart) else self.pair(*pair) for pair in pairs]
        return concat(parts, self.between)

    def template(self, records: Sequence[WireRecord]) -> Template:
        """Return the template of a run of records."""
        return Template([self.record(record) for record in records], self.separator)
