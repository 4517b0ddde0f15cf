"""Starting and closing Kafka's clients, and ending tasks, so that no cancel of ours is lost and no connection is left.

aiokafka cancels its own tasks when it is closed, waits for them, and takes any cancel that arrives meanwhile for theirs
(`close` in client.py and in consumer/fetcher.py, 0.14). The caller's cancel is gone: a loop that was told to end goes
on for ever. And a start that is cancelled while it asks its first broker forgets that connection (`bootstrap` in
client.py). So clients are started and closed in tasks of their own, and a cancel meets our waiting, not aiokafka's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")
CLOSE = 5.0
"""Seconds that closing a client may take before it is given up."""
HALFWAY = 1.0
"""Seconds that a start goes on after its caller was cancelled: when brokers answer, it ends in order."""
_started: WeakSet[Any] = WeakSet()


def started_clients() -> list[Any]:
    """Return the clients of this process that have been started and not closed: `task_watch` looks after them."""
    return list(_started)


async def start(client: Any) -> None:
    """Start a consumer, producer or admin client. Whatever comes of it, close the client in the end.

    Raises:
        KafkaError: as the client's own `start`.

    """
    starting = asyncio.ensure_future(client.start())
    try:
        await asyncio.wait((starting,))
    except asyncio.CancelledError:
        await asyncio.wait((starting,), timeout=HALFWAY)
        starting.cancel()
        await asyncio.wait((starting,), timeout=HALFWAY)
        raise
    starting.result()
    _started.add(client)


async def close(client: Any, within: float | None = CLOSE) -> None:
    """Close a consumer, producer or admin client, or give that up after `within` seconds (None: never).

    A producer delivers what it holds first; what has not been awaited is lost if closing is given up.

    Raises:
        KafkaError: as the client's own `stop` or `close`.

    """
    _started.discard(client)
    closing = asyncio.ensure_future(client.stop() if hasattr(client, "stop") else client.close())
    try:
        try:
            await asyncio.wait((closing,), timeout=within)
        except asyncio.CancelledError:
            await asyncio.wait((closing,), timeout=CLOSE)
            raise
        if closing.done():
            closing.result()
    finally:
        closing.cancel()
        if closing.done() and not closing.cancelled():
            closing.exception()  # looked at, or asyncio complains of it


@asynccontextmanager
async def opened(client: T, within: float | None = CLOSE) -> AsyncIterator[T]:
    """Start a client and close it at the end, also when it did not start.

    Raises:
        KafkaError: as the client's own methods.

    """
    try:
        await start(client)
        yield client
    finally:
        await close(client, within)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and return when all have ended, whatever they end with."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, or asyncio complains of it
