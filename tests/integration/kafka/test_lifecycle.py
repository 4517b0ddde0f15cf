"""A cancellation that arrives while a Kafka client closes takes effect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tallystream.streams.kafka.lifecycle import close, opened
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka
CLIENTS = (AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient)


async def cancelled_after(steps: int, client: Any, closing: Callable[[Any], Coroutine[Any, Any, None]]) -> bool | None:
    """Tell whether a task that closes a client, and is cancelled after so many turns of the loop, ends cancelled.

    None when it had ended before.
    """
    await client.start()
    task = asyncio.create_task(closing(client))
    for _ in range(steps):
        await asyncio.sleep(0)
    if task.done():
        return None
    task.cancel()
    await asyncio.wait((task,))
    return task.cancelled()


@pytest.mark.parametrize("kind", CLIENTS)
async def test_cancel_during_close_is_not_lost(kafka: KafkaSettings, kind: Callable[..., Any]) -> None:
    found = [await cancelled_after(steps, kind(**kafka.client()), close) for steps in range(1, 12)]
    assert found[0] is True
    assert False not in found


async def test_aiokafka_itself_loses_a_cancel_during_close(kafka: KafkaSettings) -> None:
    """The reason for `close`. If this fails, aiokafka handles the cancel, and `streams/kafka/lifecycle.py` can go."""
    found = [
        await cancelled_after(steps, AIOKafkaAdminClient(**kafka.client()), AIOKafkaAdminClient.close)
        for steps in range(1, 12)
    ]
    assert False in found


@pytest.mark.parametrize("step", ["start", "close"])
async def test_cancellation_by_the_library_is_an_error_of_the_client(kafka: KafkaSettings, step: str) -> None:
    """It would end the caller's loop in silence, because nothing reports a cancelled task."""

    class Cancelled(AIOKafkaAdminClient):  # type: ignore[misc]  # aiokafka has no types
        async def start(self) -> None:
            await super().start()
            if step == "start":
                raise asyncio.CancelledError

        async def close(self) -> None:
            await super().close()
            if step == "close":
                raise asyncio.CancelledError

    with pytest.raises(KafkaError, match="cancelled"):
        async with opened(Cancelled(**kafka.client())):
            assert step == "close"


async def test_client_that_fails_to_start_is_closed(kafka: KafkaSettings) -> None:
    class Halfway(AIOKafkaAdminClient):  # type: ignore[misc]  # aiokafka has no types
        closed = False

        async def start(self) -> None:
            await super().start()
            raise OSError("half way")

        async def close(self) -> None:
            await super().close()
            self.closed = True

    client = Halfway(**kafka.client())
    with pytest.raises(OSError, match="half way"):
        async with opened(client):
            raise AssertionError("it has not started")
    assert client.closed
