"""A lost task of a Kafka client is reported, but not tasks that the client renews or those of closed clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import aiokafka
import pytest
from aiokafka.errors import KafkaError

from tallystream.streams.kafka.task_watch import TASKS, check_tasks, find_ended_task, watch_tasks


async def forever() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise AssertionError("someone's URL")


async def ends() -> None:
    pass


@pytest.fixture
async def producer() -> AsyncIterator[Any]:
    """Provide aiokafka's producer, not started, with a sender of the test."""
    made: Any = aiokafka.AIOKafkaProducer(bootstrap_servers="127.0.0.1:1")
    made._sender._sender_task = asyncio.create_task(forever())
    yield made
    made._sender._sender_task.cancel()
    made._closed = True


async def test_working_and_closed_clients_are_not_reported(producer: Any) -> None:
    assert find_ended_task(None) is None
    assert find_ended_task(producer) is None
    producer._closed = True
    producer._sender._sender_task.cancel()
    await asyncio.wait([producer._sender._sender_task])
    assert find_ended_task(producer) is None


@pytest.mark.parametrize(("task", "said"), [(fails(), "someone's URL"), (ends(), "None"), (None, "cancelled")])
async def test_ended_sender_task_is_reported(producer: Any, task: Awaitable[None] | None, said: str) -> None:
    watching = asyncio.create_task(watch_tasks(lambda: [None, producer], every=0.001))
    await asyncio.sleep(0)
    assert not watching.done()
    if task is None:
        producer._sender._sender_task.cancel()
    else:
        producer._sender._sender_task.cancel()
        producer._sender._sender_task = asyncio.ensure_future(task)
    why = await asyncio.wait_for(watching, 10)
    assert "KafkaProducer: sender task has ended" in why
    assert said == "None" or said in why


async def test_client_closed_in_time_is_not_reported(producer: Any) -> None:
    """The owner has opened another client."""
    clients, looks = [producer], asyncio.Event()

    def look() -> list[Any]:
        looks.set()
        return list(clients)

    watching = asyncio.create_task(watch_tasks(look, every=0.001, grace=0.05))
    producer._sender._sender_task.cancel()
    await asyncio.wait([producer._sender._sender_task])
    with pytest.raises(KafkaError, match="sender task has ended"):
        check_tasks(producer)
    clients.clear()
    looks.clear()
    await looks.wait()
    assert not watching.done()
    clients.append(producer)
    assert "sender task" in await asyncio.wait_for(watching, 10)


def test_aiokafka_keeps_its_tasks_in_the_watched_attributes() -> None:
    """This test fails if a new version moves one of them."""
    import inspect

    from aiokafka import client
    from aiokafka.consumer import consumer, fetcher, group_coordinator
    from aiokafka.producer import producer, sender

    sources = "".join(
        inspect.getsource(module) for module in (client, consumer, fetcher, group_coordinator, producer, sender)
    )
    for path in TASKS:
        for name in path.split("."):
            assert f"self.{name} = " in sources, path
