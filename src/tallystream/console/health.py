"""The deployment's health as reported by `status` and `doctor`, cached for a short time for all requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from tallystream.agents.ledger.config import LedgerPlace
from tallystream.agents.ledger.positions import identity_of, positions
from tallystream.agents.ledger.store.open import open_database
from tallystream.console import models
from tallystream.schemas.errors import TallystreamError

FRESH = 5.0
"""Seconds that an answer is cached."""
Examine = Callable[[], Awaitable[models.DeploymentHealth]]


class HealthReader:
    """`examine` inspects processes and runs checks; None: nothing can be inspected from here."""

    def __init__(self, examine: Examine | None, place: LedgerPlace, as_of: Callable[[], str]) -> None:
        self._examine = examine
        self._place = place
        self._as_of = as_of
        self._lock = asyncio.Lock()
        self._last: tuple[float, models.DeploymentHealth] | None = None

    async def read(self) -> models.DeploymentHealth:
        """Return the health, at most `FRESH` seconds old."""
        async with self._lock:
            if self._last is not None and time.monotonic() - self._last[0] < FRESH:
                return self._last[1]
            health = await self._look()
            self._last = (time.monotonic(), health)
            return health

    async def _look(self) -> models.DeploymentHealth:
        if self._examine is None:
            health = models.DeploymentHealth(as_of=self._as_of(), components=[], findings=[], checks=[], ledger={})
        else:
            health = await self._examine()
        return health.model_copy(update={"ledger": await asyncio.to_thread(self._ledger)})

    def _ledger(self) -> dict[str, str]:
        try:
            database = open_database(self._place, read_only=True)
        except TallystreamError as exc:
            return {"state": exc.message}
        try:
            with database.reading():
                found = {"where": database.where, "kind": database.dialect.name}
                if (identity := identity_of(database)) is not None:
                    found |= {"cluster": identity.cluster_id, "prefix": identity.prefix}
                by_topic: dict[str, int] = {}
                for (topic, _), position in positions(database).items():
                    by_topic[topic] = by_topic.get(topic, 0) + position.offset
                return found | {f"offsets of {topic}": f"{offset:,}" for topic, offset in sorted(by_topic.items())}
        except TallystreamError as exc:
            return {"state": exc.message}
        finally:
            database.close()
