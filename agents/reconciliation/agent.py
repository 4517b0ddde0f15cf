"""The agent: reads records, cursors, links, telemetry and its own statements, and publishes changed statements.

Any number of agents may run at once; they are not elected, as with `openai.days`
(docs/adr/0006-openai-days-is-a-view.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord
from prometheus_client import CollectorRegistry

from tallystream.agents.reconciliation.config import ReconciliationConfig, sources
from tallystream.agents.reconciliation.days import Reconciliation
from tallystream.agents.reconciliation.metrics import ReconciliationMetrics
from tallystream.schemas.billing.accounts import AccountLink
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.openai import OpenAIRecord, PollCursor
from tallystream.schemas.reconciliation import ReconciledDay
from tallystream.schemas.status import ReadPosition
from tallystream.streams.kafka.errors import TopicRecreatedError
from tallystream.streams.kafka.follower import FollowedBatch, TopicFollower
from tallystream.streams.kafka.producer import MANY, producing
from tallystream.streams.kafka.topic_setup import TopicCheck
from tallystream.streams.leader_election import retry_while_away
from tallystream.streams.service.backoff import FailureBackoff
from tallystream.streams.service.clock import Clock, SystemClock, boottime, utc

log = structlog.get_logger()
HEADERS = schema_of(ReconciledDay).headers
GAP = 10.0
"""Seconds without reading after which the topics are read from the beginning, because one may have been recreated."""


class ReconciliationAgent:
    """The agent: `run` until it is cancelled."""

    def __init__(self, config: ReconciliationConfig, registry: CollectorRegistry, clock: Clock | None = None) -> None:
        self._config = config
        self._kafka, topics = config.kafka, config.topics
        self._metrics = ReconciliationMetrics(registry)
        self._clock = clock or SystemClock()
        self._records, self._rows = topics.openai_records.name, topics.session_hour_rows.name
        self._accounts, self._own = topics.accounts.name, topics.reconciliation_days.name
        self._needs = (*sources(topics), topics.reconciliation_days)
        self._topics_fit = TopicCheck(self._kafka, self._needs)
        self._reached: dict[tuple[str, int], int] = {}

    def reached(self) -> list[ReadPosition]:
        """Return the positions of its sources up to which the statements are complete; none while catching up."""
        return [
            ReadPosition(topic=topic, partition=partition, offset=offset)
            for (topic, partition), offset in self._reached.items()
        ]

    async def run(self) -> None:
        """Keep `reconciliation.days` up to date.

        Raises:
            UnfitError: an existing topic has unsuitable settings.

        """
        await retry_while_away(self._anew)

    async def _anew(self) -> None:
        """Follow the topics; start again from their beginnings whenever the state may be invalid."""
        await self._topics_fit()
        failures = FailureBackoff()
        while True:
            self._metrics.position.set(0)
            self._reached = {}
            try:
                async with producing(self._kafka, MANY) as producer:
                    await self._follow(producer)
            except TopicRecreatedError as exc:
                pause = failures.after_failure()
                log.warning("reading_again", why=exc.message, in_s=pause)
            await asyncio.sleep(pause)

    async def _follow(self, producer: AIOKafkaProducer) -> None:
        first = utc(self._clock.now_ns()) - timedelta(days=self._config.days)
        view = Reconciliation(self._config.book, f"{first:%Y-%m-%d}")
        names = [topic.name for topic in self._needs]
        async with TopicFollower(self._kafka, names, {}) as follower:
            looked, after = boottime(), 0.0
            waiting = urgent = False
            while True:
                batches = await follower.poll()
                if (silent := boottime() - looked) > GAP:
                    raise TopicRecreatedError(f"nothing was read for {silent:.0f} s")
                if self._apply(view, batches):
                    urgent = True
                    # Statements are based on the other topics' contents by now, so read those first.
                    await follower.renew()
                looked = boottime()
                waiting |= bool(batches)
                if follower.behind or not waiting or (looked < after and not urgent):
                    continue
                at = {place: offset for place, offset in follower.positions().items() if place[0] != self._own}
                await self._publish(view, producer, at)
                took = boottime() - looked
                after = boottime() + max(self._config.pause, took / self._config.share - took)
                waiting = urgent = False

    async def _publish(
        self, view: Reconciliation, producer: AIOKafkaProducer, reached: dict[tuple[str, int], int]
    ) -> None:
        positions = sum(reached.values())  # compaction and retention never make it smaller
        if changed := await asyncio.to_thread(view.take, positions):
            for key, value in changed:
                await producer.send(self._own, value, key=key, headers=HEADERS)
            await producer.flush()
            log.debug("statements_published", statements=len(changed))
        self._metrics.show(view.published.rows())
        self._metrics.position.set(positions)
        self._reached = reached

    def _apply(self, view: Reconciliation, batches: Iterable[FollowedBatch]) -> bool:
        """Add what was read; return whether it is more than telemetry."""
        urgent = False
        for batch in batches:
            urgent |= batch.topic != self._rows
            for message in batch.records:
                if message.key is None:
                    continue
                try:
                    self._one(view, batch.topic, message)
                except (ValueError, KeyError, TypeError) as exc:
                    log.warning(
                        "unreadable_record", topic=batch.topic, offset=message.offset, why=f"{exc!r}"[:200]
                    )  # fmt: skip
        return urgent

    def _one(self, view: Reconciliation, topic: str, message: ConsumerRecord) -> None:
        key, value = message.key, message.value
        if topic == self._rows:
            view.row(key, value, message.timestamp)
        elif topic == self._own:
            view.published.apply(key, value)
        elif topic == self._accounts:
            view.link(key, None if value is None else AccountLink.model_validate_json(value))
        elif value is not None and topic == self._records:
            record = OpenAIRecord.model_validate_json(value)
            if record.key == key:
                view.record(record)
        elif value is not None:
            view.cursor(PollCursor.model_validate_json(value))
