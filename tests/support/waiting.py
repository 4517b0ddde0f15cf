"""Waits for conditions by checking them repeatedly, without fixed sleeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")
PAUSE = 0.05
PATIENCE = 120.0
"""Timeout for failures in seconds, long enough for slow machines; passing tests do not wait for it."""
ANSWER = 60.0
"""The same for one answer of another process: over HTTP, of a short command, or at its end."""


def eventually(check: Callable[[], T | None], what: str | Callable[[], str], seconds: float = PATIENCE) -> T:
    """Call `check` until its result is truthy and return that; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        _give_up_after(deadline, what, seconds)
        time.sleep(PAUSE)
    return answer


async def until(check: Callable[[], Any], what: str | Callable[[], str], seconds: float = PATIENCE) -> Any:
    """The same for coroutines; `check` may return an awaitable."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return answer
        _give_up_after(deadline, what, seconds)
        await asyncio.sleep(PAUSE)


def _give_up_after(deadline: float, what: str | Callable[[], str], seconds: float) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
