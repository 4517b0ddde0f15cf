"""Shows what a running process waits for: `kill -USR1 PID` writes the stack of each task to its log.

A process that waits for something that never comes writes nothing by itself. Only names and lines are shown, no
variables, so no secret and no content can be among them.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import structlog

log = structlog.get_logger()
_INNER = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))
"""Attributes of a coroutine, a generator and an asynchronous generator: its frame, and what it waits for."""


def log_tasks() -> None:
    """Write one line for each task of the running event loop."""
    for task in asyncio.all_tasks():
        log.info("task", name=task.get_name(), waits=list(_frames(task.get_coro())))


def _frames(awaited: Any) -> Iterator[str]:
    """Yield `file:line function`, outermost first, of a coroutine and all that it waits for."""
    while awaited is not None:
        if type(awaited).__name__.startswith("async_generator_"):  # one step of a generator, which it does not name
            awaited = next((one for one in gc.get_referents(awaited) if hasattr(one, "ag_frame")), awaited)
        for frame_name, next_name in _INNER:
            frame = getattr(awaited, frame_name, None)
            if frame is not None:
                yield f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_qualname}"
                awaited = getattr(awaited, next_name)
                break
        else:
            yield type(awaited).__name__
            return
