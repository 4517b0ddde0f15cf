"""The poller: a member of the group, polling while it is the active one, standing by while it is not."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack

import structlog
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from tallystream.schemas.errors import Unreachable
from tallystream.streams.clock import Clock, SystemClock
from tallystream.streams.kafka import KafkaSettings
from tallystream.streams.ops import Health
from tallystream.streams.poller.client import Client
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.election import Election
from tallystream.streams.poller.engine import Engine, Progress, Quiet, Round, Term
from tallystream.streams.poller.errors import LeadershipLost
from tallystream.streams.poller.ledger import Ledger, read_cursors
from tallystream.streams.poller.metrics import Metrics
from tallystream.streams.poller.publish import Publisher
from tallystream.streams.runtime.guard import boottime
from tallystream.streams.topics import Topics, ensure

log = structlog.get_logger()
SLACK = 60.0
"""Seconds beyond what was expected after which the process counts as stuck."""
TICK = 5.0
LONGEST_PAUSE = 30.0


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

    async def run(self) -> None:
        """Poll or stand by until cancelled.

        Raises:
            UsageError: the CA file cannot be used.
            Unfit: a topic exists that is not as it must be.

        """
        pause = 1.0
        while True:
            try:
                await self._member(once=False)
            except (Unreachable, KafkaError, OSError) as exc:
                why = exc.message if isinstance(exc, Unreachable) else type(exc).__name__
                log.warning("kafka_away", why=why, retry_in_s=pause)
                self._expect(pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def once(self) -> Round:
        """Poll everything once and return what came of it.

        Raises:
            Unreachable: another poller is the active one, or Kafka does not answer.
            UsageError, Unfit: as `run`.

        """
        try:
            return await self._member(once=True)
        except (KafkaError, OSError) as exc:
            raise Unreachable(
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
            publisher = await stack.enter_async_context(Publisher(self._kafka, topics, election))
            engine = Engine(config, client, publisher, self.metrics, self._clock, self._progress)
            since = time.monotonic()
            while True:
                number = election.term
                self.metrics.active.set(number is not None)
                if number is None:
                    if once and election.joined and time.monotonic() - since > 2 * config.session_timeout:
                        raise Unreachable(
                            "another poller is the active one", "it polls already; `--once` is for when none runs"
                        )
                    self._expect(TICK)
                    await election.wait(min(TICK, config.session_timeout / 4))
                    continue
                log.info("active", term=number)
                try:
                    result = await self._lead(election, engine, number, once=once)
                except LeadershipLost:
                    log.warning("standing_by", why="another poller is, or may be, the active one")
                    since = time.monotonic()
                else:
                    if result is not None:
                        return result

    async def _lead(self, election: Election, engine: Engine, number: int, *, once: bool) -> Round | None:
        """Poll until the term is over (None), or once."""
        ledger = Ledger(self._kafka, self._topics.openai_records.name)
        cursors = await read_cursors(self._kafka, self._topics.poller_control.name)
        while election.term == number:
            self._expect(SLACK)
            result = await engine.round(Term(number, ledger, cursors))
            log.info(
                "polled", published=result.published, restated=result.restated, unchanged=result.unchanged,
                failed=len(result.failures),
            )  # fmt: skip
            if once:
                return result
            spread = random.random() * self._config.jitter  # noqa: S311 - no secret
            await self._idle(election, number, self._config.interval * (1 + spread))
        return None

    async def _idle(self, election: Election, number: int, seconds: float) -> None:
        """Wait for the next poll, or until the term is over. On the wall of boot time: a lid that was shut counts."""
        until = boottime() + seconds
        while election.term == number and (left := until - boottime()) > 0:
            self._expect(TICK)
            await election.wait(min(TICK, left))

    def _left(self) -> None:
        self._election = None
        self.metrics.active.set(0)
