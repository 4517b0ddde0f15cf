"""Simulates what a power cut leaves of a log: which batches of a Kafka segment were on the disk."""

from __future__ import annotations

import os
import random
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
    """Return the record batches of a segment (format 2), up to the first incomplete one."""
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


def cut_tail(file: Path, least: int, chance: random.Random) -> int:
    """Cut a file at a random byte behind its first `least` ones; return how many were lost."""
    size = file.stat().st_size
    keep = chance.randint(min(least, size), size)
    os.truncate(file, keep)
    return size - keep


class Unsynced:
    """The data that a broker has written since this object was created, except on topics flushed at each message.

    A process that is killed leaves all it wrote to the page cache; a power cut takes what was not flushed. What a log
    held a while before the end was flushed (the broker flushes every second), and so was what Kafka's checkpoint says.
    """

    def __init__(self, logs: Path, promised: frozenset[str]) -> None:
        self._logs = logs
        self._promised = promised
        self._synced = {segment: segment.stat().st_size for segment in self._segments()}

    def cut(self, chance: random.Random, *, whole: bool = False) -> dict[str, int]:
        """Cut the newest segments at random bytes, or remove everything not flushed; return what each log lost.

        The broker must have ended.
        """
        recovered = _checkpoint(self._logs / "recovery-point-offset-checkpoint")
        newest: dict[Path, Path] = {segment.parent: segment for segment in self._segments()}
        lost = {}
        for folder, segment in newest.items():
            least = self._synced.get(segment, 0)
            least = max([least, *(b.end for b in batches(segment) if b.last < recovered.get(folder.name, 0))])
            if whole:
                gone = segment.stat().st_size - least
                os.truncate(segment, least)
            else:
                gone = cut_tail(segment, least, chance)
            if gone:
                lost[folder.name] = gone
        return lost

    def _segments(self) -> list[Path]:
        """Return the segments in order, without the controller's and those of topics that are flushed immediately."""
        return [
            segment
            for segment in sorted(self._logs.glob("*/*.log"))
            if segment.parent.name.rpartition("-")[0] not in self._promised | {"__cluster_metadata"}
        ]


def _checkpoint(file: Path) -> dict[str, int]:
    """Read one of Kafka's checkpoint files: an offset for each log."""
    if not file.exists():
        return {}
    rows = [line.split() for line in file.read_text().splitlines()[2:]]
    return {f"{topic}-{partition}": int(offset) for topic, partition, offset in rows}
