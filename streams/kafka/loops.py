"""Runs a component's endless loops: the end of one is never silent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tallystream.schemas.errors import UnreachableError
from tallystream.streams.kafka.lifecycle import cancel


async def run_loops(*loops: Coroutine[Any, Any, None]) -> None:
    """Run the loops until cancelled. When one ends, the others are cancelled.

    A task group would not do: it takes no notice of a task that something else than the group has cancelled, such as a
    client library that cancels what the task is waiting for. Its loop would be gone, and the others would go on without
    it.

    Raises:
        UnreachableError: a loop was cancelled by something else.
        TallystreamError: the error of the loop that ended first.

    """
    tasks = [asyncio.create_task(loop, name=getattr(loop, "__qualname__", None)) for loop in loops]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(*tasks)
    for task in done:
        if task.cancelled():
            raise UnreachableError(f"{task.get_name()} was cancelled by a client library", "start it again")
        task.result()
