"""Is work going on? Cheap to ask, so that a probe may ask every second."""

from __future__ import annotations

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
    tails: int = 0
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
    stale: int = 0
    """Changelog records ignored because a newer version had come before them (a zombie's)."""
    overtaken: int = 0
    """Public rows written again because a replaced worker's older ones had come after them."""
    foreign: int = 0
    """Changelog records ignored because they are not the table's: somebody else writes the topic."""


@dataclass(frozen=True)
class PartProgress:
    """One partition: offsets of the source, seconds since something folded has been waiting for its acknowledgement."""

    expected: int
    applied: int
    end: int | None
    """End of the source as last seen; None before the first fetch."""
    unacked_for: float


@dataclass(frozen=True)
class Progress:
    """A table at one moment. `parts` has the recovered partitions only; `pending` counts the others assigned to us."""

    parts: dict[int, PartProgress]
    pending: int
    idle_for: float
    """Seconds since anything moved (a fold, a group, a recovery step) or there was nothing to do."""

    @property
    def waiting(self) -> bool:
        """Tell whether there is work: records to fold, groups to acknowledge or partitions to recover."""
        return bool(self.pending) or any(
            part.applied < part.expected or (part.end is not None and part.expected < part.end)
            for part in self.parts.values()
        )

    def stuck(self, after: float) -> str | None:
        """Return why this is stuck, None when it is not: work waits and nothing has moved for `after` seconds."""
        for p, part in self.parts.items():
            if part.unacked_for > after:
                return f"partition {p}: no acknowledgement for {part.unacked_for:.0f} s"
        if self.waiting and self.idle_for > after:
            what = f"{self.pending} partitions to recover" if self.pending else "records wait"
            return f"{what}, and nothing has moved for {self.idle_for:.0f} s"
        return None
