"""The end of one of a component's loops is never silent."""

from __future__ import annotations

import asyncio

import pytest

from tallystream.schemas.errors import UnreachableError
from tallystream.streams.kafka.loops import run_loops


class Endless:
    """A loop that notes its end."""

    def __init__(self) -> None:
        self.runs = asyncio.Event()
        self.ended = False

    async def run(self) -> None:
        self.runs.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


async def waits_for_what_a_library_cancels() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def fails() -> None:
    raise UnreachableError("Kafka is away")


async def test_loop_cancelled_by_a_library_ends_all_with_an_error() -> None:
    other = Endless()
    with pytest.raises(UnreachableError, match="waits_for_what_a_library_cancels was cancelled"):
        await asyncio.wait_for(run_loops(other.run(), waits_for_what_a_library_cancels()), 30)
    assert other.ended


async def test_error_of_one_loop_ends_the_others() -> None:
    other = Endless()
    with pytest.raises(UnreachableError, match="Kafka is away"):
        await asyncio.wait_for(run_loops(other.run(), fails()), 30)
    assert other.ended


async def test_cancellation_ends_all_loops() -> None:
    loops = [Endless(), Endless()]
    running = asyncio.create_task(run_loops(*(loop.run() for loop in loops)))
    for loop in loops:
        await loop.runs.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(loop.ended for loop in loops)
