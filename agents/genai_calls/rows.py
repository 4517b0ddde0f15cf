"""The contents of the changelog of table `calls`: the original messages of the last minutes, and marks of released
calls.

Rows are written once and never changed. A row's version is the offset of the message that made it, and it is visible
only to later messages. So an incomplete group, of which some rows but not the position were written, has the same
effect as no group at all.

    b|<append time, ms>|<offset>    a message
    m|<day of the append time>|<mark>
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from tallystream.schemas.errors import UnfitError

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
_BATCH, _MARK = b"b|", b"m|"
_FORMAT = b"1"
_VERSION_BYTES = 8


def batch_row(append_ms: int, offset: int, value: bytes) -> tuple[bytes, bytes]:
    """Return the row of a message."""
    return b"b|%015d|%020d" % (append_ms, offset), _versioned(offset) + value


def mark_row(append_ms: int, offset: int, mark: bytes) -> tuple[bytes, bytes]:
    """Return the row of a mark."""
    return _mark_key(append_ms // DAY_MS, mark), _versioned(offset)


def version_of(row: bytes) -> int:
    """Return the offset of the message that created a row.

    Raises:
        UnfitError: the row is in another format, such as that of a newer version.

    """
    if row[:1] != _FORMAT:
        raise UnfitError(
            "the table calls holds rows of a format that this version does not read", "run the newer version"
        )
    return int.from_bytes(row[1 : 1 + _VERSION_BYTES], "big")


def is_marked(
    read: Callable[[bytes], bytes | None],
    mark: bytes,
    append_ms: int,
    offset: int,
    days: int,
    marked_days: Collection[int],
) -> bool:
    """Tell whether a mark was made by a message up to `offset`, in the last `days` before its append time.

    Only `marked_days`, which are all that have marks, are looked up: the days may be many, and those with marks few.
    """
    today = append_ms // DAY_MS
    for day in marked_days:
        if today - days <= day <= today:
            row = read(_mark_key(day, mark))
            if row is not None and version_of(row) <= offset:
                return True
    return False


class Stored(NamedTuple):
    """What the rows of a partition hold."""

    batches: list[tuple[int, int, bytes]]
    """Append time, offset and value of the messages appended since a time and before an offset, in order."""
    marked_days: set[int]
    """The days of append time that have marks."""


def read_all(rows: Iterable[tuple[bytes, bytes]], since_ms: int, before: int) -> Stored:
    """Read all rows; of the messages those that were appended since a time and before an offset."""
    found: list[tuple[int, int, bytes]] = []
    marked_days: set[int] = set()
    for key, row in rows:
        if key.startswith(_BATCH):
            append_ms, offset = (int(part) for part in key[2:].split(b"|"))
            if append_ms >= since_ms and offset < before:
                found.append((offset, append_ms, row[1 + _VERSION_BYTES :]))
        elif key.startswith(_MARK):
            marked_days.add(int(key[2:8]))
    return Stored([(append_ms, offset, value) for offset, append_ms, value in sorted(found)], marked_days)


def watermark(append_ms: int, keep_ms: int) -> bytes:
    """Return the watermark below which messages may be removed, rising once an hour."""
    return b"%015d" % (max(0, append_ms - keep_ms) // HOUR_MS * HOUR_MS)


def is_closed(key: bytes, marker: bytes, mark_days: int) -> bool:
    """Tell whether a watermark closes a row: a message before it, or a mark of a day that is no longer looked up."""
    if key.startswith(_BATCH):
        return key[2:17] < marker
    return key.startswith(_MARK) and int(key[2:8]) + mark_days + 1 < int(marker) // DAY_MS


def _mark_key(day: int, mark: bytes) -> bytes:
    return b"m|%06d|%b" % (day, mark)


def _versioned(offset: int) -> bytes:
    return _FORMAT + offset.to_bytes(_VERSION_BYTES, "big")
