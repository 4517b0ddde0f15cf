"""The end of a partition may be a hole: no record is left before the end offset, and the position does not move.

Compaction keeps the newest segment, so a broker cannot produce such a hole on request. A stand-in for aiokafka's
consumer does.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiokafka import TopicPartition

from tallystream.schemas.errors import UnreachableError
from tallystream.streams.kafka.reader import TopicReader
from tallystream.streams.kafka.settings import KafkaSettings

AT = TopicPartition("t", 0)


class Standing:
    """A consumer whose position never moves. `answers` tells whether its fetches get (empty) answers."""

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers
        self._stamp: int | None = None
        self.fetches = 0

    async def position(self, at: TopicPartition) -> int:
        return 5

    def last_poll_timestamp(self, at: TopicPartition) -> int | None:
        return self._stamp

    def highwater(self, at: TopicPartition) -> int:
        return 9

    async def getmany(self, *at: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        self.fetches += 1
        await asyncio.sleep(0.002)
        if self._answers:
            self._stamp = int(time.time() * 1000)
        return {}

    def pause(self, *at: TopicPartition) -> None:
        pass

    def resume(self, *at: TopicPartition) -> None:
        pass


async def walk(consumer: Standing, stall: float) -> list[tuple[int, list[Any]]]:
    reader = TopicReader(KafkaSettings("127.0.0.1:9"), "t", stall=stall)
    return [found async for found in reader._partition(consumer, AT, 9)]


async def test_answered_fetch_without_records_ends_the_partition() -> None:
    consumer = Standing(answers=True)
    assert await walk(consumer, stall=30.0) == [(9, [])]
    assert consumer.fetches >= 2, "the answer must be older than the fetch that found nothing in it"


async def test_unanswered_fetches_do_not_end_the_partition() -> None:
    with pytest.raises(UnreachableError, match="no records"):
        await walk(Standing(answers=False), stall=0.1)
