"""What a power cut leaves of a log: the batches of a segment of Kafka's, and which of them were on the disk."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

_HEAD = struct.Struct(">qi")
_LAST_OFFSET_DELTA = struct.Struct(">i")
_DELTA_AT = 23


class SegmentBatch(NamedTuple):
    """A record batch of a segment: where it begins and ends in the file, and the offsets it holds."""

    at: int
    end: int
    first: int
    last: int


def batches(segment: Path) -> list[SegmentBatch]:
    """Return the record batches of a segment (format 2), up to the first that is not whole."""
    raw = segment.read_bytes()
    found: list[SegmentBatch] = []
    at = 0
    while at + _DELTA_AT + _LAST_OFFSET_DELTA.size <= len(raw):
        first, length = _HEAD.unpack_from(raw, at)
        end = at + _HEAD.size + length
        if length <= 0 or end > len(raw):
            break
        (delta,) = _LAST_OFFSET_DELTA.unpack_from(raw, at + _DELTA_AT)
        found.append(SegmentBatch(at, end, first, first + delta))
        at = end
    return found
