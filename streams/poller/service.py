"""The poller: a member of the group, polling while it is the active one, standing by while it is not."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from functools import partial

import structlog
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from tallystream.schemas.errors import UnreachableError
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics, ensure
from tallystream.streams.leader_election import Election, Fence, alternate, persist
from tallystream.streams.poller.client import Client
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.metrics import Metrics
from tallystream.streams.poller.published import Ledger, read_cursors
from tallystream.streams.poller.publisher import Publisher
from tallystream.streams.poller.round import Engine, Progress, Quiet, Round, Term
from tallystream.streams.service.clock import Clock, SystemClock, boottime
from tallystream.streams.service.ops import Health

log = structlog.get_logger()
SLACK = 60.0
"""Seconds beyond what was expected after which the process counts as stuck."""
TICK = 5.0


class Poller:
    """One poller process's work. `run` until it is cancelled, or `once`."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Topics,
        config: PollerConfig,
        *,
        registry: CollectorRegistry | None = None,
        clock: Clock | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._config = config
        self._clock = clock or SystemClock()
        self._progress = progress or Quiet()
        self.metrics = Metrics(registry or CollectorRegistry(), (resource.name for resource in config.resources))
        self.metrics.interval.set(config.interval)
        self._election: Election | None = None
        self._due = time.monotonic() + SLACK
        self._stood_since = 0.0

    async def run(self) -> None:
        """Poll or stand by until cancelled.

        Raises:
            UsageError: the CA file cannot be used.
            UnfitError: a topic exists that is not as it must be.

        """
        await persist(partial(self._member, once=False), self._expect)

    async def once(self) -> Round:
        """Poll everything once and return what came of it.

        Raises:
            UnreachableError: another poller is the active one, or Kafka does not answer.
            UsageError, UnfitError: as `run`.

        """
        try:
            return await self._member(once=True)
        except (KafkaError, OSError) as exc:
            raise UnreachableError(
                f"Kafka at {self._kafka.bootstrap} did not answer: {type(exc).__name__}", "is it running?"
            ) from exc

    def health(self) -> Health:
        """Return whether the process moves on. A remote that fails is a metric, not a sick poller."""
        late = time.monotonic() - self._due
        if late > SLACK:
            return Health(False, f"no progress for {late:.0f} s longer than expected: restart this poller")
        if self._election and (silent := boottime() - self._election.polled_at) > SLACK:
            return Health(False, f"the group member has not run for {silent:.0f} s: restart this poller")
        return Health(True, self._role())

    def ready(self) -> Health:
        """Return whether this poller has joined its group, as the active one or on standby."""
        return Health(bool(self._election and self._election.joined), self._role())

    def _role(self) -> str:
        if self._election is None or not self._election.joined:
            return "joining"
        return "active" if self._election.term is not None else "standby"

    def _expect(self, seconds: float) -> None:
        self._due = max(self._due, time.monotonic() + seconds)

    async def _member(self, *, once: bool) -> Round:
        """Join, and poll whenever it is our turn; with `once` return after the first whole round."""
        config, topics = self._config, self._topics
        self._expect(SLACK)
        await ensure(self._kafka, (topics.openai_records, topics.openai_days, topics.poller_control))
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                Client(
                    config.client, config.tokens, clock=self._clock, expect=self._expect,
                    retried=lambda why: self.metrics.retries.labels(why.value).inc(),
                )
            )  # fmt: skip
            election = await stack.enter_async_context(
                Election(self._kafka, topics.poller_group, topics.poller_control.name, config.session_timeout)
            )
            stack.callback(self._left)
            self._election = election
            publisher = await stack.enter_async_context(Publisher(self._kafka, topics))
            engine = Engine(config, client, publisher, self.metrics, self._clock, self._progress)
            return await alternate(
                election,
                partial(self._lead, election, engine, once=once),
                partial(self._stand_by, election, once=once),
                min(TICK, config.session_timeout / 4),
            )

    def _stand_by(self, election: Election, *, once: bool) -> None:
        """Note that another poller is the active one; with `once` only for so long."""
        self._expect(TICK)
        self._stood_since = self._stood_since or time.monotonic()
        if once and election.joined and time.monotonic() - self._stood_since > 2 * self._config.session_timeout:
            raise UnreachableError(
                "another poller is the active one", "it polls already; `--once` is for when none runs"
            )

    async def _lead(self, election: Election, engine: Engine, number: int, *, once: bool) -> Round | None:
        """Poll until cancelled, or once."""
        log.info("active", term=number)
        self._stood_since = 0.0
        self.metrics.active.set(1)
        try:
            self._expect(SLACK)
            ledger = Ledger(self._kafka, self._topics.openai_records.name)
            cursors = await read_cursors(self._kafka, self._topics.poller_control.name)
            term = Term(Fence(election, number), ledger, cursors)
            while True:
                self._expect(SLACK)
                result = await self._round(election, engine, term, number)
                log.info(
                    "polled", published=result.published, restated=result.restated, unchanged=result.unchanged,
                    failed=len(result.failures),
                )  # fmt: skip
                if once:
                    return result
                spread = random.random() * self._config.jitter  # noqa: S311 - no secret
                await self._idle(self._config.interval * (1 + spread))
        finally:
            self.metrics.active.set(0)

    async def _round(self, election: Election, engine: Engine, term: Term, number: int) -> Round:
        try:
            return await engine.round(term)
        except asyncio.CancelledError:
            if election.term != number:
                self.metrics.discarded.inc()
            raise

    async def _idle(self, seconds: float) -> None:
        """Wait for the next poll, on the wall of boot time: a lid that was shut counts."""
        until = boottime() + seconds
        while (left := until - boottime()) > 0:
            self._expect(TICK)
            await asyncio.sleep(min(TICK, left))

    def _left(self) -> None:
        self._election = None
