"""The gateway's producers: each has a part of the partitions, and a connection of its own to each broker.

A broker answers the requests of one connection one after the other, and writes the batches of a request one after the
other: on a single broker, where each is flushed to disk before it is acknowledged, a round of twelve partitions takes
twelve flushes. The disk flushes the batches of several connections together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import NamedTuple

from aiokafka import AIOKafkaProducer

from tallystream.streams.gateway.delivery.direct_sender import DirectSender
from tallystream.streams.gateway.message import Place
from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.producer import GATEWAY, new_producer
from tallystream.streams.kafka.settings import KafkaSettings

CONNECT_TIMEOUT = 15.0
PRODUCERS = 6
"""More than six gain nothing on a disk that flushes a batch in a millisecond."""


class ProducerChannel(NamedTuple):
    """One of the producers, and what sends its batches."""

    producer: AIOKafkaProducer
    sender: DirectSender


def channel_of(place: Place) -> int:
    """Return the number of the channel that a partition belongs to."""
    return place.partition % PRODUCERS


async def open_channels(kafka: KafkaSettings, topics: Iterable[str]) -> tuple[ProducerChannel, ...]:
    """Start the producers, which then know the leaders of these topics.

    Raises:
        KafkaError, OSError, TimeoutError: one of them cannot be started; the others have been closed.

    """
    producers = [new_producer(kafka, GATEWAY) for _ in range(PRODUCERS)]
    channels = tuple(ProducerChannel(producer, DirectSender(producer)) for producer in producers)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT), asyncio.TaskGroup() as starting:
            for producer in producers:
                starting.create_task(_start(producer, topics))
    except BaseException as exc:
        await abandon_all(producers)
        if isinstance(exc, BaseExceptionGroup):
            raise exc.exceptions[0] from None
        raise
    return channels


async def _start(producer: AIOKafkaProducer, topics: Iterable[str]) -> None:
    await start(producer)
    for name in topics:
        await producer.partitions_for(name)


async def abandon_all(producers: Iterable[AIOKafkaProducer]) -> None:
    """Close producers without delivering their pending batches."""
    await asyncio.gather(*map(abandon, producers))


async def abandon(producer: AIOKafkaProducer) -> None:
    """Close a producer without delivering its pending batches.

    `stop()` alone would wait for every batch, and an idempotent one is retried forever. So the sender is cancelled
    first: once to leave its loop, and again to abandon the requests it then waits for (aiokafka 0.14,
    producer/sender.py `_sender_routine`). The batches are discarded, so that `stop()` does not wait for them.
    """
    sender = producer._sender.sender_task  # noqa: SLF001 - see above
    for _ in range(50):
        if sender is None or sender.done():
            break
        sender.cancel()
        await asyncio.wait([sender], timeout=0.1)
    if isinstance(producer._sender, DirectSender):  # noqa: SLF001 - see above
        producer._sender.abandon()  # noqa: SLF001 - see above
    batches = producer._message_accumulator  # noqa: SLF001 - see above
    batches._batches.clear()  # noqa: SLF001 - see above
    batches._pending_batches.clear()  # noqa: SLF001 - see above
    with contextlib.suppress(Exception):
        await close(producer)
