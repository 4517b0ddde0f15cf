"""Is work going on? Cheap to ask, so that a probe may ask every second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Counters:
    """What a table has done since the process started; each only rises."""

    folded: int = 0
    """Source records folded."""
    skipped: int = 0
    """Source records delivered again after they had been counted."""
    gaps: int = 0
    """Batches dropped because records before them were missing: each is followed by a seek back."""
    tail_stalls: int = 0
    """Times nothing came although the source has more: each is followed by a seek back."""
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
    """Changelog records ignored because a newer version had come before them: a replaced worker's."""
    late_writes: int = 0
    """Public rows written again because a replaced worker's had come after them."""
    lost_records: int = 0
    """Source records that the broker lost, or that retention took before they were counted."""
    unknown_records: int = 0
    """Changelog records ignored because they are not the table's: somebody else writes the topic."""


class FoldActivity:
    """When something moved last, on a clock in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._moved = clock()

    def moved(self) -> float:
        """Note that work goes on; return the time."""
        self._moved = self._clock()
        return self._moved

    def idle_for(self) -> float:
        """Return seconds since something moved."""
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
    """A table at one moment. `partitions` has those that are recovered; `pending` counts the others assigned to us."""

    partitions: dict[int, PartitionProgress]
    pending: int
    idle_for: float
    """Seconds since anything moved (a fold, a group, a recovery step) or there was nothing to do."""

    @property
    def waiting(self) -> bool:
        """Tell whether there is work: records to fold, groups to acknowledge or partitions to recover."""
        return bool(self.pending) or any(
            one.applied < one.expected or (one.end is not None and one.expected < one.end)
            for one in self.partitions.values()
        )

    def stuck(self, after: float) -> str | None:
        """Return why this is stuck, None when it is not: work waits and nothing has moved for `after` seconds."""
        for number, partition in self.partitions.items():
            if partition.unacked_for > after:
                return f"partition {number}: no acknowledgement for {partition.unacked_for:.0f} s"
        if self.waiting and self.idle_for > after:
            what = f"{self.pending} partitions to recover" if self.pending else "records wait"
            return f"{what}, and nothing has moved for {self.idle_for:.0f} s"
        return None
