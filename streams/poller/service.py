"""The poller service: polls while it is the elected poller, and stands by otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

import structlog
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from tallystream.schemas.errors import UnreachableError
from tallystream.schemas.status import PollerStatus
from tallystream.streams.kafka.topic_setup import TopicCheck
from tallystream.streams.leader_election import Election, Fence, election_loop, retry_while_away
from tallystream.streams.poller.agenda import Agenda
from tallystream.streams.poller.client import OpenAIClient, ProviderClients
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.history import PollHistory
from tallystream.streams.poller.metrics import PollerMetrics
from tallystream.streams.poller.poll_run import NullProgress, PollLease, PollProgress, PollResult, PollRun
from tallystream.streams.poller.published import PublishedIndex, read_cursors
from tallystream.streams.poller.publisher import Publisher
from tallystream.streams.poller.resources import Resource
from tallystream.streams.service.clock import Clock, SystemClock, boottime
from tallystream.streams.service.ops import Health

log = structlog.get_logger()
SLACK = 60.0
"""Seconds beyond the expected duration after which the process counts as stuck."""
TICK = 5.0


class Poller:
    """The work of one poller process: `run` until it is cancelled, or `once`."""

    def __init__(
        self,
        config: PollerConfig,
        registry: CollectorRegistry,
        clock: Clock | None = None,
        *,
        progress: PollProgress | None = None,
    ) -> None:
        self._kafka = config.kafka
        self._topics = topics = config.topics
        self._topics_fit = TopicCheck(config.kafka, (topics.openai_records, topics.openai_days, topics.poller_control))
        self._config = config
        self._clock = clock or SystemClock()
        self._progress = progress or NullProgress()
        self.metrics = PollerMetrics(registry, (resource.name for resource in config.resources))
        self.metrics.interval.set(config.interval)
        self._election: Election | None = None
        self._due = time.monotonic() + SLACK
        self._stood_since = 0.0
        self._active = False
        self._days_offset = 0
        self._history = PollHistory(config.resources)
        self._held: dict[str, int] = {}

    async def run(self) -> None:
        """Poll or stand by until cancelled.

        Raises:
            UsageError: the CA file cannot be used.
            UnfitError: an existing topic has unsuitable settings.

        """
        await retry_while_away(partial(self._member, once=False), self._expect)

    async def once(self) -> PollResult:
        """Poll everything once and return the result.

        Raises:
            UnreachableError: another poller is the active one, or Kafka does not answer.
            UsageError, UnfitError: as `run`.

        """
        try:
            return await self._member(once=True)
        except (KafkaError, OSError) as exc:
            raise UnreachableError(
                f"Kafka at {self._kafka.bootstrap} did not answer: {type(exc).__name__}", "check that it is running"
            ) from exc

    def healthy(self) -> Health:
        """Return whether the process makes progress. Failures of a provider are reported by metrics and do not make the
        poller unhealthy.
        """
        late = time.monotonic() - self._due
        if late > SLACK:
            return Health(False, f"no progress for {late:.0f} s longer than expected: restart this poller")
        if self._election and (silent := boottime() - self._election.polled_at) > SLACK:
            return Health(False, f"the group member has not run for {silent:.0f} s: restart this poller")
        return Health(True, self._role())

    def ready(self) -> Health:
        """Return whether this poller has joined its group, as the active one or on standby."""
        return Health(bool(self._election and self._election.joined), self._role())

    def status(self) -> PollerStatus:
        """Return whether it polls, and how far openai.days has been computed."""
        config = self._config
        return PollerStatus(
            active=self._active,
            days_offset=self._days_offset,
            interval_seconds=config.interval,
            keys=config.tokens.kinds,
            resources=self._history.resources(),
            held_days=dict(self._held),
            not_polled=list(config.not_polled),
        )

    def days_held(self, days: Mapping[str, int]) -> None:
        """Note how many days keep their previous figures, by reason."""
        self._held = dict(days)
        self.metrics.note_held(days)

    def days_done(self, offset: int) -> None:
        """Note up to which offset of openai.records the days are complete; the agent that computes them runs in this
        process.
        """
        self._days_offset = offset
        self.metrics.days_offset.set(offset)

    def _role(self) -> str:
        if self._election is None or not self._election.joined:
            return "joining"
        return "active" if self._election.term is not None else "standby"

    def _expect(self, seconds: float) -> None:
        self._due = max(self._due, time.monotonic() + seconds)

    async def _member(self, *, once: bool) -> PollResult:
        """Join the group and poll whenever elected; with `once` return after the first complete run."""
        config, topics = self._config, self._topics
        self._expect(SLACK)
        await self._topics_fit()
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                OpenAIClient(
                    config.client, config.tokens, clock=self._clock, expect=self._expect,
                    retried=lambda why: self.metrics.retries.labels(why.value).inc(),
                )
            )  # fmt: skip
            getter = ProviderClients(client, await self._others(stack))
            election = await stack.enter_async_context(
                Election(self._kafka, topics.poller_group, topics.poller_control.name, config.session_timeout)
            )
            stack.callback(self._left)
            self._election = election
            publisher = await stack.enter_async_context(Publisher(self._kafka, topics))
            poll_run = PollRun(config, getter, publisher, self.metrics, self._clock, self._progress, self._history)
            return await election_loop(
                election,
                partial(self._lead, election, poll_run, once=once),
                partial(self._stand_by, election, once=once),
                min(TICK, config.session_timeout / 4),
            )

    async def _others(self, stack: AsyncExitStack) -> dict[str, OpenAIClient]:
        """Return the clients of other providers, by their kind of key."""
        config = self._config
        others = dict(config.providers)
        if config.anthropic is not None:
            others["anthropic"] = config.anthropic
        clients: dict[str, OpenAIClient] = {}
        for name, reached in others.items():
            client = OpenAIClient(
                reached, config.tokens, clock=self._clock, expect=self._expect,
                retried=lambda why: self.metrics.retries.labels(why.value).inc(),
            )  # fmt: skip
            clients[name] = await stack.enter_async_context(client)
        return clients

    def _stand_by(self, election: Election, *, once: bool) -> None:
        """Note that another poller is the active one; with `once`, fail after a while."""
        self._expect(TICK)
        self._stood_since = self._stood_since or time.monotonic()
        if once and election.joined and time.monotonic() - self._stood_since > 2 * self._config.session_timeout:
            raise UnreachableError(
                "another poller is the active one", "it already polls; use `--once` only when no poller is running"
            )

    async def _lead(self, election: Election, poll_run: PollRun, number: int, *, once: bool) -> PollResult | None:
        """Poll until cancelled, or once."""
        log.info("active", term=number)
        self._stood_since = 0.0
        self._active = True
        self.metrics.active.set(1)
        try:
            self._expect(SLACK)
            index = PublishedIndex(self._kafka, self._topics.openai_records.name)
            cursors = await read_cursors(self._kafka, self._topics.poller_control.name)
            lease = PollLease(Fence(election, number), index, cursors)
            agenda = Agenda(self._config)
            while True:
                self._expect(SLACK)
                due = agenda.due(boottime())
                result = await self._poll(election, poll_run, lease, number, due)
                log.info(
                    "polled", resources=len(due), published=result.published, restated=result.restated,
                    unchanged=result.unchanged, failed=len(result.failures),
                )  # fmt: skip
                if once:
                    return result
                agenda.note(due, result, boottime())
                await self._idle(agenda.next_at())
        finally:
            self._active = False
            self.metrics.active.set(0)

    async def _poll(
        self, election: Election, poll_run: PollRun, lease: PollLease, number: int, due: Sequence[Resource]
    ) -> PollResult:
        try:
            return await poll_run.poll_resources(lease, due)
        except asyncio.CancelledError:
            if election.term != number:
                self.metrics.discarded.inc()
            raise

    async def _idle(self, until: float) -> None:
        """Wait for the next poll, by CLOCK_BOOTTIME: time asleep counts."""
        while (left := until - boottime()) > 0:
            self._expect(TICK)
            await asyncio.sleep(min(TICK, left))

    def _left(self) -> None:
        self._election = None
