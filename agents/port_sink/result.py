"""What a sink has done since it began: what `sink --once` reports."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SinkResult:
    """Counts of entities and records."""

    written: int = 0
    """Entities that Port has acknowledged."""
    refused: int = 0
    """Entities that Port will not take: dead letters."""
    unmapped: int = 0
    """Records that the mapping could not be carried out on: dead letters."""
    waiting: int = 0
    """Entities that Port does not take yet, such as those that relate to one it does not have."""
    stopped: dict[str, list[str]] = field(default_factory=dict)
    """By kind that was not written, the blueprints Port lacks."""

    @property
    def whole(self) -> bool:
        """Return whether everything there was is in Port."""
        return not (self.refused or self.unmapped or self.waiting or self.stopped)
