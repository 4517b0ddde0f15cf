"""What a changelog holds: rows by key, and two reserved rows a partition; and how it is replayed, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

Row = tuple[bytes, bytes | None]
"""A key and its value; None is a tombstone."""

POSITION = b"\0position"
"""Reserved row: what of the source has been folded. Opens every record batch of a group and ends its last one."""

WATERMARK = b"\0closed"
"""Reserved row: the watermark below which keys have been removed for good. It never falls."""


DERIVED = b"\0~"
"""Begins the keys of rows that a fold derives from its own: the local store has them, the changelog does not."""

DERIVED_FORMAT = b"\0derived"
"""Reserved row of the store: which derived rows it has. They are whole when it says what the fold would write."""


def reserved(key: bytes) -> bool:
    """Tell the runtime's own rows (and the store's) from the table's; keys of a table never start with a zero byte."""
    return key[:1] == b"\0"


Version = tuple[int, int]
"""Generation and source offset, compared in this order: of two rows of a key the higher one holds."""


class PublicRows(NamedTuple):
    """Rows for another topic, acknowledged before the changelog row of the same group is sent.

    `rows` are `(key, value)` as they go on the wire; `headers` are put on each record. Where the topic is one of the
    table's `owned_topics`, `partition` is the partition that was folded.
    """

    topic: str
    partition: int
    rows: Sequence[Row]
    headers: Sequence[tuple[str, bytes]] = ()


class Position(NamedTuple):
    """`offset` is the next source offset to fold; `append_ms` the time of the record before it, -1 when there was none.

    The time is a fingerprint: a source topic that was deleted and created again has another record at `offset - 1`.
    """

    offset: int
    append_ms: int = -1

    def encode(self) -> bytes:
        """Return the value of a POSITION row."""
        return b"%d %d" % self

    @classmethod
    def decode(cls, raw: bytes) -> Position:
        """Return the position a row holds.

        Raises:
            ValueError: `raw` is not a position.

        """
        offset, append_ms = raw.split(b" ")
        return cls(int(offset), int(append_ms))


class Watermark(NamedTuple):
    """`value` closes keys for good; it came into force at source offset `since`.

    Its group was whole, because it stands in the last batch: what lies before `since` has been counted or refused.
    """

    value: bytes
    since: int

    def encode(self) -> bytes:
        """Return the value of a WATERMARK row."""
        return b"%d %b" % (self.since, self.value)

    @classmethod
    def decode(cls, raw: bytes) -> Watermark:
        """Return the watermark a row holds.

        Raises:
            ValueError: `raw` is not a watermark.

        """
        since, value = raw.split(b" ", 1)
        return cls(value, int(since))


class Replayed(NamedTuple):
    """What changelog records do to a store: `rows` to write (None deletes), and counts of what was ignored."""

    rows: dict[bytes, bytes | None]
    replaced: Sequence[tuple[bytes, bytes | None, bytes | None]]
    """Of each of the table's keys in `rows`: the key, the row before, the row now (None: there is none)."""
    zombies: int
    """Rows that a newer version had come before: a replaced worker's."""
    unknown: int
    """Records that are not the table's: no key, or a value that cannot be read."""


def replay(
    records: Iterable[tuple[bytes | None, bytes | None]],
    read: Callable[[bytes], bytes | None],
    version: Callable[[bytes], int],
    hidden: set[bytes],
) -> Replayed:
    """Fold changelog `records`, in offset order, into what `read` finds in the store.

    A position: the one read last wins, because a torn or late group can only move it back, to where it is still true.
    A watermark: the highest wins. A row: the highest version wins; a key whose last record lost is put into `hidden`
    (and taken out once a newer one follows): it has to be written again before compaction keeps the wrong record.
    """
    rows: dict[bytes, bytes | None] = {}
    before: dict[bytes, bytes | None] = {}
    zombies = unknown = 0
    for key, value in records:
        if key is None or (value is not None and not _readable(key, value, version)):
            unknown += 1
            if key is not None and not reserved(key):
                hidden.add(key)
            continue
        old = rows[key] if key in rows else read(key)
        if reserved(key):
            if key == WATERMARK and value is not None and old is not None:
                value = max(Watermark.decode(value), Watermark.decode(old)).encode()
        elif value is not None and old is not None and version(old) > version(value):
            zombies += 1
            hidden.add(key)
            continue
        else:
            hidden.discard(key)
            before.setdefault(key, old)
        rows[key] = value
    return Replayed(rows, [(key, old, rows[key]) for key, old in before.items()], zombies, unknown)


def _readable(key: bytes, value: bytes, version: Callable[[bytes], int]) -> bool:
    try:
        if key == POSITION:
            Position.decode(value)
        elif key == WATERMARK:
            Watermark.decode(value)
        elif not reserved(key):
            version(value)
    except Exception:  # noqa: BLE001 - whatever a table's reading of foreign bytes raises
        return False
    return True
