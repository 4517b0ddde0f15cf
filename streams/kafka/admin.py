"""Creates all admin clients of the product."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.kafka.settings import KafkaSettings

T = TypeVar("T")
REQUEST_TIMEOUT = 40.0
"""Seconds for one answer of a broker; aiokafka's own default. Interactive commands use less."""
AGAIN = 0.2
"""Seconds before a request is repeated that failed for a passing reason."""


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


async def persistently(call: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Return what `call` returns; repeat it for `seconds` while it fails for a reason that passes.

    An admin client repeats nothing by itself, and a broker with much to do can lose a connection or answer that it is
    not the controller. `call` must be safe to repeat, and its client started: whether Kafka can be reached at all is
    told at once by the start.

    Raises:
        KafkaError: the last one, if it may not pass or the time is over.

    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            return await call()
        except KafkaError as exc:
            if not exc.retriable or loop.time() + AGAIN >= deadline:
                raise
        await asyncio.sleep(AGAIN)
