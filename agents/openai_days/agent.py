"""The agent: reads both topics from their beginnings and publishes changed rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord

from tallystream.agents.openai_days.days import Days, UnusableRecord
from tallystream.schemas import keys
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.dead_letter_builder import dead_letter
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.openai import BilledDay, OpenAIRecord
from tallystream.streams.kafka.errors import TopicRecreatedError
from tallystream.streams.kafka.follower import TopicFollower
from tallystream.streams.kafka.producer import MANY, producing
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import TopicCheck
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.leader_election import retry_while_away
from tallystream.streams.service.backoff import FailureBackoff
from tallystream.streams.service.clock import Clock, SystemClock, boottime, utc

log = structlog.get_logger()
HEADERS, LETTER_HEADERS = schema_of(BilledDay).headers, schema_of(DeadLetter).headers
INVALID, INCOMPLETE = "invalid", "incomplete"
"""Why a day keeps its previous figures: a response is invalid, or not all resources of the day have answered."""
GAP = 10.0
"""Seconds without reading after which the topics are read from the beginning, because a topic may have been recreated
and have grown past the position.
"""


class OpenAIDays:
    """The agent: `run` until it is cancelled.

    `done` is called with the offset of the records up to which the days are complete; `held` with the number of days
    that keep their previous figures, by reason.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Topics,
        done: Callable[[int], None] = lambda _: None,
        held: Callable[[Mapping[str, int]], None] = lambda _: None,
        clock: Clock | None = None,
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._topics_fit = TopicCheck(kafka, (topics.openai_records, topics.openai_days, topics.deadletters))
        self._done = done
        self._held = held
        self._clock = clock or SystemClock()

    async def run(self) -> None:
        """Keep `openai.days` up to date.

        Raises:
            UnfitError: an existing topic has unsuitable settings.

        """
        await retry_while_away(self._anew)

    async def _anew(self) -> None:
        """Follow the topics; start again from their beginnings whenever the state may be invalid."""
        await self._topics_fit()
        failures = FailureBackoff()
        while True:
            self._done(0)
            try:
                async with producing(self._kafka, MANY) as producer:
                    await self._follow(producer)
            except TopicRecreatedError as exc:
                pause = failures.after_failure()
                log.warning("reading_again", why=exc.message, in_s=pause)
            await asyncio.sleep(pause)

    async def _follow(self, producer: AIOKafkaProducer) -> None:
        records, rows = self._topics.openai_records.name, self._topics.openai_days.name
        days, reported = Days(), set[UnusableRecord]()
        async with TopicFollower(self._kafka, (rows, records), {}) as tail:
            looked = boottime()
            while True:
                batches = await tail.poll()
                if (silent := boottime() - looked) > GAP:
                    raise TopicRecreatedError(f"nothing was read for {silent:.0f} s")
                for batch in batches:
                    for message in batch.records:
                        _apply(days, message, own=batch.topic == rows)
                if any(batch.topic == rows for batch in batches):
                    # The rows are based on records that exist by now, so read those first.
                    await tail.renew()
                looked = boottime()
                if not tail.behind and days.missing_records:
                    # Compaction may have removed them while we read, in favour of records behind the end we knew.
                    await tail.renew()
                if tail.behind:
                    continue
                if changed := days.take():
                    for key, value in changed:
                        await producer.send(rows, value, key=key, headers=HEADERS)
                    await producer.flush()
                    log.debug("days_published", rows=len(changed))
                await self._report(days, reported, producer)
                self._done(tail.positions()[records, 0])

    async def _report(self, days: Days, reported: set[UnusableRecord], producer: AIOKafkaProducer) -> None:
        """Report which days keep their previous figures, and why: each reason once, as a dead letter and in the log."""
        problems = days.problems
        self._held({INVALID: len({one.day for one in problems}), INCOMPLETE: len(days.held)})
        for problem in problems:
            if problem in reported:
                continue
            log.warning("day_kept", day=problem.day, resource=problem.resource, why=problem.detail)
            source = (self._topics.openai_records.name, *keys.split(problem.key))
            detail = f"{problem.resource} of {problem.day}: {problem.detail}; the day keeps its previous figures"
            key, value = dead_letter(
                source, Reason.INVALID_BILL, detail, utc(self._clock.now_ns()),
                record={"resource": problem.resource, "day": problem.day, "polled_at": problem.polled_at},
            )  # fmt: skip
            await producer.send_and_wait(self._topics.deadletters.name, value, key=key, headers=LETTER_HEADERS)
            reported.add(problem)
        reported.intersection_update(problems)


def _record(key: bytes, value: bytes) -> OpenAIRecord:
    record = OpenAIRecord.model_validate_json(value)
    if record.key != key:
        raise ValueError("not the key of this record")
    return record


def _apply(days: Days, message: ConsumerRecord, *, own: bool) -> None:
    if not message.key:
        return
    try:
        if own and message.value is None:
            days.removed(message.key)
        elif own:
            days.published(message.key, message.value)
        elif message.value is not None:
            days.passed(message.key, message.offset)
            days.record(message.key, message.offset, _record(message.key, message.value))
    except (ValueError, OverflowError) as exc:  # a time may lie outside of what UTC can say
        log.warning("unreadable_record", topic=message.topic, offset=message.offset, why=str(exc)[:200])
        if not own:
            days.unreadable(message.key, "the record cannot be read by this version")
