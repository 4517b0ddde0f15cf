"""Every producer of ours: idempotent, acknowledged by all in-sync replicas, and set up for what it is for.

Idempotence keeps a retry from appending a record twice, and keeps the order of what one producer sends. What a producer
has not delivered when its process dies is written again by whoever takes over: each writer's module says how.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.kafka.settings import KafkaSettings


@dataclass(frozen=True)
class ProducerProfile:
    """What a producer is for. Times in seconds."""

    request_timeout: float = 20.0
    """For one answer of a broker, and for how long a batch is tried again before it is given up."""
    linger: float = 0.0
    """How long a batch waits for more records."""
    batch_bytes: int = 16 << 10
    """A batch that is this large waits no longer."""
    request_bytes: int = 1 << 20
    """Largest record before compression; a broker's own default for what it takes is 1 MiB after it."""
    compression: str | None = None


SINGLE = ProducerProfile()
"""Records whose acknowledgement is awaited one by one: connections, dead letters, notes of the sink."""
MANY = ProducerProfile(linger=0.005)
"""Many small records that are flushed together: a few ms of waiting make whole batches of them."""
BUCKETS = ProducerProfile(request_timeout=10.0, request_bytes=32 << 20, compression="gzip")
"""Polled buckets: rows compress 10 to 20 times, so what is too large for Kafka shows only after compression. A poller
that may no longer be the active one must know soon, hence the short timeout."""
GATEWAY = ProducerProfile(request_timeout=15.0, batch_bytes=768 << 10)
"""What clients send: the gateway makes its own batches, each with all its records for a partition, below Kafka's 1 MiB;
a broker that is slow for longer than this is a case for the spool."""


def new_producer(kafka: KafkaSettings, profile: ProducerProfile = SINGLE) -> AIOKafkaProducer:
    """Return a producer, not started: `lifecycle.start` and `lifecycle.close(..., within=None)` are its ends."""
    return AIOKafkaProducer(
        **kafka.client(),
        acks="all",
        enable_idempotence=True,
        request_timeout_ms=int(profile.request_timeout * 1000),
        linger_ms=int(profile.linger * 1000),
        max_batch_size=profile.batch_bytes,
        max_request_size=profile.request_bytes,
        compression_type=profile.compression,
    )


@asynccontextmanager
async def producing(kafka: KafkaSettings, profile: ProducerProfile = SINGLE) -> AsyncIterator[AIOKafkaProducer]:
    """Give a started producer; at the end it delivers what it holds, however long that takes.

    Raises:
        KafkaError: as aiokafka's own methods.

    """
    async with opened(new_producer(kafka, profile), within=None) as producer:
        yield producer
