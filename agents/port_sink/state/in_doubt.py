"""Entities whose last write in Port is unknown: each is sent again after the last moment at which it can be
overwritten.

Three situations lead to a write with unknown outcome:

- A request of ours got no answer. It is sent again at once, and its entities once more a request timeout later, when
  the first one can no longer be on its way.
- Another sink was active before and ended, or was paused, in mid-request (`SentIndex.plans`). Its entities are sent
  again at once, after its session and request timeouts, and for the last time when the access token that its request
  carries has expired: a paused process could be woken until then, and Port would still accept what it sends.
- Another sink notes, while we are active, that it has written: it was paused and has been woken. Its entities are sent
  again at once.

The plan of such a request stays in `port.sent` until its entities have been sent for the last time, so that our
successor knows about it too.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import NamedTuple

from tallystream.agents.port_sink.mapping.entities import EntityKey
from tallystream.schemas.port import PlannedRequest

MARGIN_MS = 60_000
"""Maximum difference between Port's clock and ours, for the expiry of tokens."""
PATIENCE_MS = 86_400_000
"""After this time a plan is settled even if an entity of it was not sent, because its document no longer exists."""


class Doubt(NamedTuple):
    """An entity, and the document it is made of."""

    entity: EntityKey
    kind: str
    key: bytes


class _Due(NamedTuple):
    at_ms: int
    number: int
    """Of equal times the first one in is the first one out; plans cannot be compared."""
    last: bool
    far: bool
    """The last repetition of what another sink may write, which can be hours from now."""
    plan: PlannedRequest


class InDoubt:
    """Entities to be sent again, and when (ms since the epoch)."""

    def __init__(self) -> None:
        self._due: list[_Due] = []
        self._last: list[tuple[int, PlannedRequest]] = []
        """Plans that have been due for the last time, and when that was."""
        self._number = count()
        self.forced: set[EntityKey] = set()
        """Entities to be sent even if Port is thought to have them."""

    def __len__(self) -> int:
        return len(self._due) + len(self._last)

    @property
    def soon(self) -> int:
        """Return how many requests are to be sent again within a timeout or two, those of long ago not counted."""
        return sum(not one.far for one in self._due)

    def add(self, plan: PlannedRequest, at_ms: int) -> None:
        """Send the entities of a request of ours again at a time."""
        self._push(at_ms, plan, last=True)

    def add_foreign(self, plan: PlannedRequest, now_ms: int, window_ms: int) -> None:
        """Send what another sink may have written, or may write yet.

        `window_ms` is its session timeout and its request timeout.
        """
        self._push(now_ms, plan, last=False)
        self._push(now_ms + window_ms, plan, last=False)
        self._push(max(now_ms + 2 * window_ms, plan.until_ms + MARGIN_MS), plan, last=True, far=True)

    def clear(self) -> None:
        """Forget everything: another sink writes now."""
        self._due.clear()
        self._last.clear()
        self.forced.clear()

    def due(self, now_ms: int) -> list[Doubt]:
        """Return the entities to be sent again now; all of them are forced."""
        in_doubt = list[Doubt]()
        while self._due and self._due[0].at_ms <= now_ms:
            one = heapq.heappop(self._due)
            in_doubt += _doubts(one.plan)
            if one.last:
                self._last.append((now_ms, one.plan))
        self.forced.update(doubt.entity for doubt in in_doubt)
        return in_doubt

    def settled(self, now_ms: int) -> list[PlannedRequest]:
        """Return, once, the plans whose entities have been sent since they were due for the last time."""
        done = [
            plan
            for since_ms, plan in self._last
            if now_ms - since_ms > PATIENCE_MS or not any(doubt.entity in self.forced for doubt in _doubts(plan))
        ]
        if done:
            self._last = [(since_ms, plan) for since_ms, plan in self._last if plan not in done]
        return done

    def _push(self, at_ms: int, plan: PlannedRequest, *, last: bool, far: bool = False) -> None:
        heapq.heappush(self._due, _Due(at_ms, next(self._number), last, far, plan))


def _doubts(plan: PlannedRequest) -> list[Doubt]:
    return [
        Doubt(EntityKey(one.blueprint, one.identifier), one.source.kind, one.source.key.encode())
        for one in plan.entities
    ]
