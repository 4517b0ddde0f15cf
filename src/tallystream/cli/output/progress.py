"""Runs a command's coroutine, and shows a progress bar for work that takes longer than a moment."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from tallystream.cli.output.consoles import err_console

T = TypeVar("T")
PATIENCE = 0.7
"""Seconds before a progress bar appears."""


def run(work: Coroutine[Any, Any, T], *, logs: bool = True) -> T:
    """Run to the end. The Kafka client's log is kept off the terminal, because we report its errors in one line.

    `logs=False`: nothing in it writes to our own log, so that structlog, which takes long to import, is not needed.
    """
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    if logs:
        log_to_stderr()
    return asyncio.run(work)


def log_to_stderr() -> None:
    """Send our own log to stderr, because a command's stdout may be a document that a program reads."""
    import structlog

    if not structlog.is_configured():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            # Looked up for each line: a stream that was replaced meanwhile may be closed.
            logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        )


@contextmanager
def no_collector() -> Iterator[None]:
    """Pause the cyclic garbage collector: on a table of many rows it takes 40% of the time and frees nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class ProgressBar(Protocol):
    """Called with (done, total)."""

    def __call__(self, done: int, total: int, /) -> None:
        """Show the progress."""
        ...


@contextmanager
def bar(what: str) -> Iterator[ProgressBar]:
    """Show a progress bar on stderr, on terminals only, once `PATIENCE` has passed. It disappears at the end."""
    if not err_console.is_terminal:
        yield lambda _done, _total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
