"""Starts and closes Kafka clients, and cancels tasks, without losing a cancellation or leaking a connection.

aiokafka cancels its own tasks when it is closed, waits for them, and takes any cancel that arrives meanwhile for theirs
(`close` in client.py and in consumer/fetcher.py, 0.14). The caller's cancel is gone: a loop that was told to end goes
on forever. And a start that is cancelled while it asks its first broker forgets that connection (`bootstrap` in
client.py). So clients are started and closed in separate tasks, and a cancellation hits our waiting instead of
aiokafka's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from weakref import WeakSet

from aiokafka.errors import KafkaError

from tallystream.streams.kafka.rebootstrap import rebootstrap

T = TypeVar("T")
CLOSE = 5.0
"""Best-effort timeout for closing a client, in seconds."""
HALFWAY = 1.0
"""Seconds that a start may continue after its caller was cancelled; if the brokers answer, it ends cleanly."""
_started: WeakSet[Any] = WeakSet()


def started_clients() -> list[Any]:
    """Return the clients of this process that have been started and not closed."""
    return list(_started)


async def start(client: Any) -> None:
    """Start a consumer, producer or admin client, which asks its bootstrap servers again when it must.

    The client must be closed even if this fails.

    Raises:
        KafkaError: as the client's own `start`, and if that was cancelled by the library.

    """
    rebootstrap(client)
    starting = asyncio.ensure_future(client.start())
    try:
        await asyncio.wait((starting,))
    except asyncio.CancelledError:
        await asyncio.wait((starting,), timeout=HALFWAY)
        starting.cancel()
        await asyncio.wait((starting,), timeout=HALFWAY)
        raise
    with own_cancel_only():
        starting.result()
    _started.add(client)


async def close(client: Any, within: float | None = CLOSE) -> None:
    """Close a consumer, producer or admin client; gives up after `within` seconds (None: never).

    A producer first delivers its pending records; those not awaited are lost if closing times out.

    Raises:
        KafkaError: as the client's own `stop` or `close`, and if that was cancelled by the library.

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
            with own_cancel_only():
                closing.result()
    finally:
        closing.cancel()
        if closing.done() and not closing.cancelled():
            closing.exception()  # retrieve the exception, or asyncio logs a warning


@asynccontextmanager
async def opened(client: T, within: float | None = CLOSE) -> AsyncIterator[T]:
    """Start a client and close it at the end, even if it did not start.

    Raises:
        KafkaError: as the client's own methods.

    """
    try:
        await start(client)
        yield client
    finally:
        await close(client, within)


@contextmanager
def own_cancel_only() -> Iterator[None]:
    """Let only a cancellation of this very task through; another one becomes a KafkaError.

    Waiting for a future that a client library has cancelled raises CancelledError, too. It would end a loop in silence,
    because nothing reports a cancelled task.

    Raises:
        KafkaError: nobody has cancelled this task.

    """
    try:
        yield
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise KafkaError("a Kafka client has cancelled what it was asked") from exc


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until all have ended; their exceptions are ignored."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # retrieve the exception, or asyncio logs a warning
