"""The send queue: the newest version of each entity waiting for Port, in bulk-sized batches of one blueprint.

Laws, checked by property tests: only the newest version of an entity is sent, and never while an earlier one is in
flight; every version that is put in is sent, or a newer version is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tallystream.agents.port_sink.mapping.entities import Entity, EntityKey
from tallystream.agents.port_sink.port import api

HEAD_START_MS = 2_000
"""Head start for relation targets."""


@dataclass(frozen=True)
class QueuedEntity:
    """An entity in the queue, and its document. Times in ms since the epoch."""

    entity: Entity
    kind: str
    key: bytes
    order: int = 0
    at_ms: int | None = None
    since_ms: int = 0
    """Since when it waits."""
    appended_ms: int | None = None
    """When the oldest change it stands for was appended; None: it is only sent again."""
    attempts: int = 0


class SendQueue:
    """`linger_ms` is how long an entity waits for others to share its request."""

    def __init__(self, linger_ms: int = 250) -> None:
        self._ranks: dict[str, int] = {}
        self._linger_ms = linger_ms
        self._waiting: dict[str, dict[EntityKey, tuple[QueuedEntity, int]]] = {}
        """By blueprint; with the time (ms) it came in."""
        self._flying: dict[EntityKey, QueuedEntity | None] = {}
        """The entity in flight, and the newer version that waits for its outcome."""
        self._parked: dict[EntityKey, tuple[QueuedEntity, int]] = {}
        """With the time (ms) at which to try again."""

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values())) + len(self._flying) + len(self._parked)

    def rank(self, ranks: Mapping[str, int]) -> None:
        """Order blueprints: those that others relate to come first."""
        self._ranks = dict(ranks)

    @property
    def deferred(self) -> int:
        """Return how many entities wait for another attempt."""
        return len(self._parked)

    def holds(self, key: EntityKey) -> bool:
        """Tell whether a version of an entity waits or is under way."""
        return key in self._flying or key in self._parked or key in self._waiting.get(key.blueprint, {})

    def since_ms(self) -> int | None:
        """Return the oldest change that is not in Port yet, entities that wait for another attempt left out."""
        waiting = [item.since_ms for items in self._waiting.values() for item, _ in items.values()]
        held = [item.since_ms for item in self._flying.values() if item is not None]
        return min((*waiting, *held), default=None)

    def put(self, item: QueuedEntity, now_ms: int) -> None:
        """Add a version that is newer than all before it; one with a lower `order` does not replace the current one."""
        key = item.entity.key
        if key in self._flying:
            self._flying[key] = _merged(self._flying[key], item)
            return
        deferred = self._parked.pop(key, None)
        waiting = self._waiting.setdefault(key.blueprint, {})
        have = waiting.get(key)
        before = have or deferred
        newest = _merged(before[0] if before else None, item)
        waiting[key] = (newest, have[1] if have else now_ms)

    def take(self, now_ms: int) -> tuple[str, list[QueuedEntity]] | None:
        """Return a batch that is full, or whose oldest entity has lingered; None without one."""
        self._unpark(now_ms)
        best: tuple[int, str] | None = None
        for blueprint, items in self._waiting.items():
            if not items:
                continue
            item, came = next(iter(items.values()))
            if len(items) < api.BULK and now_ms - came < self._linger_ms:
                continue
            turn = (item.since_ms + HEAD_START_MS * self._ranks.get(blueprint, len(self._ranks)), blueprint)
            best = turn if best is None else min(best, turn)
        if best is None:
            return None
        waiting, batch = self._waiting[best[1]], list[QueuedEntity]()
        for item, _ in waiting.values():
            if batch and not api.fits([one.entity for one in batch], item.entity):
                break
            batch.append(item)
        for item in batch:
            del waiting[item.entity.key]
            self._flying[item.entity.key] = None
        return best[1], batch

    def newest(self, items: Iterable[QueuedEntity]) -> list[QueuedEntity]:
        """Return the newest versions of items in flight that have to be sent again."""
        found = []
        for item in items:
            held = self._flying[item.entity.key]
            found.append(item if held is None else held)
            self._flying[item.entity.key] = None
        return found

    def ack(self, item: QueuedEntity, now_ms: int) -> None:
        """Note that an item is no longer in flight, whatever its outcome."""
        held = self._flying.pop(item.entity.key, None)
        if held is not None:
            self.put(held, now_ms)

    def defer(self, item: QueuedEntity, until_ms: int, now_ms: int) -> None:
        """Try an item under way again at `until_ms`, unless a newer version waits already."""
        key = item.entity.key
        held = self._flying.pop(key, None)
        if held is not None:
            self.put(replace(held, attempts=item.attempts + 1), now_ms)
        else:
            self._parked[key] = (replace(item, attempts=item.attempts + 1), until_ms)

    def wake(self, identifiers: Iterable[str], now_ms: int) -> None:
        """Immediately retry the entities that relate to these."""
        if not self._parked:
            return
        there = set(identifiers)
        for key, (item, _) in list(self._parked.items()):
            if not there.isdisjoint(item.entity.targets()):
                self._parked[key] = (item, now_ms)

    def clear(self) -> None:
        """Forget everything: another sink delivers now."""
        self._waiting.clear()
        self._flying.clear()
        self._parked.clear()

    def _unpark(self, now_ms: int) -> None:
        for key, (item, until) in list(self._parked.items()):
            if until <= now_ms:
                del self._parked[key]
                self._waiting.setdefault(key.blueprint, {})[key] = (item, until)


def _merged(before: QueuedEntity | None, item: QueuedEntity) -> QueuedEntity:
    """Return the one of two versions that is right, standing for both of their changes."""
    if before is None:
        return item
    right = before if item.order < before.order else item
    since = min((one for one in (before.since_ms, item.since_ms) if one), default=0)
    appended = min((one for one in (before.appended_ms, item.appended_ms) if one is not None), default=None)
    attempts = before.attempts if before.entity.digest == right.entity.digest else right.attempts
    return replace(right, since_ms=since, appended_ms=appended, attempts=attempts)
