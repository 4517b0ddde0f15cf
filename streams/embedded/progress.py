"""Progress of the first download: a bar in a terminal, lines in a log.

All of it goes to stderr, because stdout is for results.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MB = 1_000_000
TENTHS = 10


@contextmanager
def download(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how much of `total` bytes has arrived; yields a function to call with the number of further bytes."""
    # Imported only here: a start that downloads nothing needs no bar.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda size: bar.advance(task, size)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show that the command is waiting."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(what):
        if not console.is_terminal:
            _say(what)
        yield


def _lines(what: str, total: int) -> Callable[[int], None]:
    """Return a counter that writes a line after each tenth of the total."""
    lock = threading.Lock()
    came = shown = 0
    _say(f"{what}: {total / MB:.0f} MB")

    def advance(size: int) -> None:
        nonlocal came, shown
        with lock:
            came += size
            tenth = came * TENTHS // total
            if tenth > shown:
                shown = tenth
                _say(f"{what}: {came / MB:.0f} of {total / MB:.0f} MB")

    return advance


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
