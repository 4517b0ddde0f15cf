"""Child processes that cannot outlive their parent, even if it is killed with SIGKILL.

The kernel sends the parent-death signal when the *thread* that forked ends, so children are forked by the main thread,
or by a thread that lives as long as the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from tallystream.streams.process import exec_bound


def bound_argv(argv: Sequence[str]) -> list[str]:
    """Return the argv that runs `argv` bound to this process; `argv[0]` must be a path. The pid stays the same."""
    return [sys.executable, "-I", "-S", str(Path(exec_bound.__file__).resolve()), str(os.getpid()), *argv]


def spawn(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start `argv` bound to this process and in a process group of its own; `options` are those of `Popen`.

    In its own group, a Ctrl-C in the terminal does not reach it, so the parent decides when and in which order to stop.
    """

    def start() -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = subprocess.Popen(bound_argv(argv), process_group=0, **options)  # noqa: S603
        return process

    if threading.current_thread() is threading.main_thread():
        return start()
    return _forker().submit(start).result()


@cache
def _forker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="forker")
