"""Creates all admin clients of the product."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient

from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.kafka.settings import KafkaSettings

REQUEST_TIMEOUT = 40.0
"""Seconds for one answer of a broker; aiokafka's own default. Interactive commands use less."""


def new_admin(kafka: KafkaSettings, *, request_timeout: float = REQUEST_TIMEOUT) -> AIOKafkaAdminClient:
    """Return an admin client, not started; `request_timeout` in seconds."""
    return AIOKafkaAdminClient(**kafka.client(), request_timeout_ms=int(request_timeout * 1000))


@asynccontextmanager
async def administering(
    kafka: KafkaSettings, *, request_timeout: float = REQUEST_TIMEOUT
) -> AsyncIterator[AIOKafkaAdminClient]:
    """Yield a started admin client and close it at the end.

    Raises:
        KafkaError: as aiokafka's own methods.

    """
    async with opened(new_admin(kafka, request_timeout=request_timeout)) as admin:
        yield admin
