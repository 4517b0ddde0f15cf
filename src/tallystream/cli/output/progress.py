"""Running a command's coroutine, and a progress bar for what takes longer than a moment."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tallystream.cli.options import err_console

T = TypeVar("T")
PATIENCE = 0.7
"""Seconds before a bar appears: what is faster needs none."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end. The Kafka client's own log stays off the terminal: its errors come as ours, in one line."""
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    return asyncio.run(work)


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep the cyclic garbage collector out of a table of many rows: it finds nothing there, for 40% of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class ProgressBar(Protocol):
    """Takes (done, in all)."""

    def __call__(self, done: int, total: int, /) -> None:
        """Show how far the work is."""
        ...


@contextmanager
def bar(what: str) -> Iterator[ProgressBar]:
    """Give a progress bar on stderr: on terminals only, once `PATIENCE` has passed, gone when the work is done."""
    if not err_console.is_terminal:
        yield lambda _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=err_console, transient=True)
    task = progress.add_task(what, total=None)
    began = time.monotonic()

    def show(done: int, total: int) -> None:
        if time.monotonic() - began >= PATIENCE:
            progress.start()
            progress.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        progress.stop()
