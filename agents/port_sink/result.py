"""The result of a sink since it started, which `sink --once` reports."""

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
    """Records on which the mapping failed: dead letters."""
    waiting: int = 0
    """Entities that Port does not take yet, such as those that relate to one it does not have."""
    stopped: dict[str, list[str]] = field(default_factory=dict)
    """By kind, the blueprints Port lacks: nothing is written to them."""

    unregistered: str | None = None
    """Why the sink is not registered as an integration in Port; nothing depends on it."""

    records: dict[str, int] = field(default_factory=dict)
    """By kind, the records that the mapping was carried out on."""
    matched: dict[str, int] = field(default_factory=dict)
    """By kind, those that gave entities, or failed to."""

    def note_mapped(self, kind: str, records: int, matched: int) -> None:
        """Note the number of mapped records of a kind, and for how many the mapping produced something."""
        self.records[kind] = self.records.get(kind, 0) + records
        self.matched[kind] = self.matched.get(kind, 0) + matched

    def unmatched(self) -> set[str]:
        """Return the kinds of which there were records and none gave anything: their mapping never matches."""
        return {kind for kind, records in self.records.items() if records and not self.matched.get(kind)}

    @property
    def whole(self) -> bool:
        """Return whether everything is in Port."""
        return not (self.refused or self.unmapped or self.waiting or self.stopped)
