"""The contents of a changelog (rows by key, and reserved rows per partition) and its replay, as pure functions."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

Row = tuple[bytes, bytes | None]
"""A key and its value; None is a tombstone."""

POSITION = b"\0position"
"""Reserved row: the position in the source. It opens every record batch of a group of several, and ends the last
one."""

WATERMARK = b"\0closed"
"""Reserved row: the watermark below which keys have been removed permanently. It never decreases."""


DERIVED = b"\0~"
"""Prefix of the keys of derived rows, which are in the local store but not in the changelog."""

DERIVED_FORMAT = b"\0derived"
"""Reserved row of the store: the format of its derived rows. They are complete when it equals the fold's format."""


def reserved(key: bytes) -> bool:
    """Tell whether a key is reserved for the runtime or the store; keys of a table never start with a zero byte."""
    return key[:1] == b"\0"


Version = tuple[int, int]
"""Generation and source offset, compared in this order: of two rows of a key the higher version is valid."""


class PublicRows(NamedTuple):
    """Rows for another topic, acknowledged before the changelog row of the same group is sent.

    `rows` are `(key, value)` as they go on the wire; `headers` are put on each record. Where the topic is one of the
    table's `owned_topics`, `partition` is the partition that was folded.
    """

    topic: str
    partition: int
    rows: Sequence[Row]
    headers: Sequence[tuple[str, bytes]] = ()


SOURCE_ID = b"\0source"
"""Reserved row: the id of the source topic whose records have been folded."""

TAIL = b"\0tail"
"""Reserved row of the store: what it has read last, so that a changelog that was cut and has grown is noticed."""

EMPTYING = b"\0emptying"
"""Reserved row of the store: it is being emptied, and what is left in it is not a copy of anything."""

HIDDEN = b"\0hidden"
"""Reserved row of the store: the keys whose last changelog record is not their newest version. The partition's owner
writes them again; until it has, whoever continues from this store must know them."""


def hidden_row(keys: Iterable[bytes]) -> bytes | None:
    """Return the value of a HIDDEN row, None without keys: each key after its length, in 4 bytes."""
    return b"".join(len(key).to_bytes(4, "big") + key for key in sorted(keys)) or None


def hidden_keys(raw: bytes | None) -> frozenset[bytes]:
    """Return the keys in a HIDDEN row."""
    keys, at, raw = [], 0, raw or b""
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "big")
        keys.append(raw[at + 4 : end])
        at = end
    return frozenset(keys)


def tail_of(offset: int, key: bytes | None, value: bytes | None) -> bytes:
    """Return the value of a TAIL row: where the record stands, and a checksum of it."""
    return b"%d %d" % (offset, zlib.crc32(repr((key, value)).encode()))


GENERATION_BITS = 44
"""A version is `generation << 44 | offset`: 17 trillion records per partition."""


def version_number(generation: int, offset: int) -> int:
    """Return the version for the record at `offset` as one number, which is comparable across generations."""
    return (generation << GENERATION_BITS) + offset


def split_version(version: int) -> Version:
    """Return generation and offset of a version; (0, -1) of -1, which is before all others."""
    if version < 0:
        return 0, version
    return version >> GENERATION_BITS, version & ((1 << GENERATION_BITS) - 1)


class Position(NamedTuple):
    """`offset` is the next source offset to fold; `append_ms` the time of the record before it, -1 if unknown.

    The time is a fingerprint: a source topic that was deleted and created again has a different record at `offset - 1`.
    `generation` is incremented when the broker has lost counted records and assigns their offsets again.
    """

    offset: int
    append_ms: int = -1
    generation: int = 0

    def encode(self) -> bytes:
        """Return the value of a POSITION row."""
        return b"%d %d %d" % self if self.generation else b"%d %d" % self[:2]

    @classmethod
    def decode(cls, raw: bytes) -> Position:
        """Return the position in a row.

        Raises:
            ValueError: `raw` is not a position.

        """
        offset, append_ms, *generation = raw.split(b" ")
        if len(generation) > 1:
            raise ValueError("a position has two or three numbers")
        return cls(int(offset), int(append_ms), *map(int, generation))


class Watermark(NamedTuple):
    """`value` closes keys permanently; it took effect at the source record of version `since`.

    Its group is complete, because it is in the last batch: all records before `since` have been counted or refused.
    """

    value: bytes
    since: int

    def encode(self) -> bytes:
        """Return the value of a WATERMARK row."""
        return b"%d %b" % (self.since, self.value)

    @classmethod
    def decode(cls, raw: bytes) -> Watermark:
        """Return the watermark in a row.

        Raises:
            ValueError: `raw` is not a watermark.

        """
        since, value = raw.split(b" ", 1)
        return cls(value, int(since))


class Replayed(NamedTuple):
    """The effect of changelog records on a store: `rows` to write (None deletes), and counts of what was ignored."""

    rows: dict[bytes, bytes | None]
    replaced: Sequence[tuple[bytes, bytes | None, bytes | None]]
    """For each of the table's keys in `rows`: the key, the row before and the row now (None if there is none)."""
    zombies: int
    """Number of rows after a newer version, which a replaced worker has written."""
    unknown: int
    """Number of records that do not belong to the table: without a key, or with an unreadable value."""


def replay(
    records: Iterable[tuple[bytes | None, bytes | None]],
    read: Callable[[bytes], bytes | None],
    version: Callable[[bytes], int],
    hidden: set[bytes],
) -> Replayed:
    """Apply changelog `records`, in offset order, to the rows that `read` returns from the store.

    A position: the last one wins, because an incomplete or late group can only move it back to where it is still valid;
    one of an earlier generation is ignored, because its offsets have been assigned again.
    A watermark: the highest wins. A row: the highest version wins. A key of either kind whose last record lost is put
    into `hidden` (and taken out once a newer one follows): it must be written again before compaction keeps the wrong
    record.
    """
    rows: dict[bytes, bytes | None] = {}
    before: dict[bytes, bytes | None] = {}
    zombies = unknown = 0
    for key, value in records:
        if key is None or key[:1] == b"\0":
            if key is None or (value is not None and not _readable(key, value)):
                unknown += 1
            elif not _replay_reserved(key, value, rows, read, hidden):
                zombies += 1
            continue
        new = -1
        if value is not None:
            try:
                new = version(value)
            except Exception:  # noqa: BLE001 - whatever a table's reading of foreign bytes raises
                unknown += 1
                hidden.add(key)
                continue
        old = rows[key] if key in rows else read(key)
        if old is not None and value is not None and version(old) > new:
            zombies += 1
            hidden.add(key)
            continue
        if hidden:
            hidden.discard(key)
        if key not in before:
            before[key] = old
        rows[key] = value
    return Replayed(rows, [(key, old, rows[key]) for key, old in before.items()], zombies, unknown)


def _replay_reserved(
    key: bytes,
    value: bytes | None,
    rows: dict[bytes, bytes | None],
    read: Callable[[bytes], bytes | None],
    hidden: set[bytes],
) -> bool:
    """Apply a record of a reserved key to `rows`; return whether it is valid, and not one of a replaced worker."""
    old = rows[key] if key in rows else read(key)
    if value is not None and old is not None:
        if key == WATERMARK:
            if Watermark.decode(value) < Watermark.decode(old):
                hidden.add(key)
                return False
            hidden.discard(key)
        elif key == POSITION and Position.decode(value).generation < Position.decode(old).generation:
            return False
    rows[key] = value
    return True


def _readable(key: bytes, value: bytes) -> bool:
    """Tell whether the value of a reserved key can be read."""
    try:
        if key == POSITION:
            Position.decode(value)
        elif key == WATERMARK:
            Watermark.decode(value)
    except ValueError:
        return False
    return True
