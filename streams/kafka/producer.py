"""Creates all producers of the product: idempotent, acks=all, and configured by a profile for their purpose.

Idempotence prevents retries from appending a record twice, and preserves the order of one producer's records. Records
that are not delivered when a process dies are written again by its successor; each writer's module describes how.
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
    """Settings for a kind of producer. Times are in seconds."""

    request_timeout: float = 20.0
    """Timeout of one request, and time for which a batch is retried."""
    linger: float = 0.0
    """How long a batch waits for more records."""
    batch_bytes: int = 16 << 10
    """A batch of this size is sent without waiting."""
    request_bytes: int = 1 << 20
    """Maximum size of a record before compression; brokers accept 1 MiB after compression by default."""
    compression: str | None = None


SINGLE = ProducerProfile()
"""For records that are awaited one by one: connections, dead letters, notes of the sink."""
MANY = ProducerProfile(linger=0.005)
"""For many small records that are flushed together: a few ms of waiting fill the batches."""
BUCKETS = ProducerProfile(request_timeout=10.0, request_bytes=32 << 20, compression="gzip")
"""Polled buckets: rows compress 10 to 20 times, so only the compressed size shows whether a record is too large for
Kafka. The timeout is short because a poller that may no longer be the active one must find out soon."""
GATEWAY = ProducerProfile(request_timeout=15.0, batch_bytes=768 << 10)
"""For telemetry: the gateway builds its own batches, each with all its records for a partition, below Kafka's 1 MiB. If
a broker is slow for longer than this, the spool is used."""


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
    """Yield a started producer; at the end it delivers its pending records, however long that takes.

    Raises:
        KafkaError: as aiokafka's own methods.

    """
    async with opened(new_producer(kafka, profile), within=None) as producer:
        yield producer
