"""Progress of a table, for health checks. Cheap, so that a probe may ask every second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Counters:
    """Counters of a table since the process started; they only increase."""

    folded: int = 0
    """Source records folded."""
    skipped: int = 0
    """Source records delivered again after they were counted."""
    gaps: int = 0
    """Batches dropped because records before them were missing: each is followed by a seek back."""
    tail_stalls: int = 0
    """Stalled fetches although the source has more records: each is followed by a seek back."""
    repairs: int = 0
    """Seeks back to the expected position."""
    groups: int = 0
    """Groups acknowledged and stored."""
    public_seconds: float = 0.0
    """Seconds that groups waited for their public rows to be acknowledged, added up."""
    changelog_seconds: float = 0.0
    """Seconds that they waited for the changelog after that."""
    rows: int = 0
    """Rows and tombstones in them."""
    expired: int = 0
    """Tombstones among these."""
    recovered: int = 0
    """Changelog records read at assignments."""
    zombie_records: int = 0
    """Changelog records of replaced workers, ignored because they follow a newer version."""
    late_writes: int = 0
    """Public rows written again because rows of a replaced worker followed them."""
    lost_records: int = 0
    """Source records that the broker lost, or that retention deleted before they were counted."""
    unknown_records: int = 0
    """Changelog records ignored because they do not belong to the table: another program writes to the topic."""


class FoldActivity:
    """The time of the last progress, in seconds of a clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._moved = clock()

    def moved(self) -> float:
        """Note progress; return the time."""
        self._moved = self._clock()
        return self._moved

    def idle_for(self) -> float:
        """Return seconds since the last progress."""
        return self._clock() - self._moved


@dataclass(frozen=True)
class PartitionProgress:
    """One partition: offsets of the source, seconds since something folded has been waiting for its acknowledgement."""

    expected: int
    applied: int
    end: int | None
    """End of the source as last seen; None before the first fetch."""
    unacked_for: float


@dataclass(frozen=True)
class Progress:
    """The progress of a table at one moment. `partitions` has those that are recovered; `pending` counts the others
    assigned to us.
    """

    partitions: dict[int, PartitionProgress]
    pending: int
    idle_for: float
    """Seconds since the last progress (a fold, a group, a recovery step) or since there was nothing to do."""

    @property
    def waiting(self) -> bool:
        """Tell whether there is work: records to fold, groups to acknowledge or partitions to recover."""
        return bool(self.pending) or any(
            one.applied < one.expected or (one.end is not None and one.expected < one.end)
            for one in self.partitions.values()
        )

    def stuck(self, after: float) -> str | None:
        """Return why the table is stuck, that is, work waits without progress for `after` seconds; otherwise None."""
        for number, partition in self.partitions.items():
            if partition.unacked_for > after:
                return f"partition {number}: no acknowledgement for {partition.unacked_for:.0f} s"
        if self.waiting and self.idle_for > after:
            what = f"{self.pending} partitions to recover" if self.pending else "records wait"
            return f"{what}, and nothing has moved for {self.idle_for:.0f} s"
        return None
