"""Writes buckets and cursors to Kafka, only while the fence confirms that this poller is the active one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Self

from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.openai import OpenAIRecord, PollCursor
from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.producer import BUCKETS, new_producer
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.leader_election import Fence
from tallystream.streams.poller.errors import FailureReason, PollError
from tallystream.streams.poller.published import PublishedIndex

RECORD, CURSOR = schema_of(OpenAIRecord).headers, schema_of(PollCursor).headers
GROUP = 64
"""Records sent before their acknowledgements are waited for."""
TICK = timedelta(microseconds=1)
Messages = Sequence[tuple[bytes, bytes]]


class Publisher:
    """Writes with acks=all and idempotence. An async context manager."""

    def __init__(self, kafka: KafkaSettings, topics: Topics, timeout: float = BUCKETS.request_timeout) -> None:
        self._kafka = kafka
        self._records = topics.openai_records.name
        self._control = topics.poller_control.name
        self._timeout = timeout
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._producer = new_producer(self._kafka, replace(BUCKETS, request_timeout=self._timeout))
        await start(self._producer)
        return self

    async def __aexit__(self, *_: object) -> None:
        await close(self._producer, within=None)

    async def publish(
        self, fence: Fence, index: PublishedIndex, records: Sequence[OpenAIRecord], cursor: PollCursor | None
    ) -> None:
        """Write the records and, once all of them are acknowledged, the cursor.

        Raises:
            NotLeaderError: another poller may be the active one; nothing (more) was written.
            PollError: Kafka did not accept a record within the timeout.

        """
        async with self._turn:
            for start in range(0, len(records), GROUP):
                group = [_after(record, index) for record in records[start : start + GROUP]]
                await fence.ensure()
                await self._send(
                    self._records, [(record.key, record.model_dump_json().encode()) for record in group], RECORD
                )
                for record in group:
                    index.note(record)
            if cursor is not None:
                await fence.ensure()
                await self._send(self._control, [(cursor.key, cursor.model_dump_json().encode())], CURSOR)

    async def _send(self, topic: str, messages: Messages, headers: list[tuple[str, bytes]]) -> None:
        """Send (key, value) messages; returns once all are acknowledged."""
        key = b""
        try:
            async with asyncio.timeout(2 * self._timeout):
                acks = []
                for key, value in messages:
                    acks.append((key, await self._producer.send(topic, value, key=key, headers=headers)))
                for sent, ack in acks:
                    key = sent
                    await ack
        except MessageSizeTooLargeError:
            raise PollError(
                FailureReason.TOO_LARGE,
                f"the bucket {key.decode()} is larger than Kafka accepts",
                "declare the resource with fewer groups or narrower buckets",
            ) from None
        except (KafkaError, OSError, TimeoutError) as exc:
            raise PollError(
                FailureReason.KAFKA,
                f"Kafka did not accept a record ({type(exc).__name__})",
                "check that Kafka is running and reachable",
            ) from exc


def _after(record: OpenAIRecord, index: PublishedIndex) -> OpenAIRecord:
    """Return the record with a `polled_at` above that of the one it replaces.

    Records fetched in our term are newer than those in the topic when it began, even if they were written by a machine
    whose clock was ahead of ours.
    """
    have = index.get(record.key)
    if have is None or record.polled_at > have.polled_at:
        return record
    return record.model_copy(update={"polled_at": have.polled_at + TICK})
