"""JQ with limits on CPU time and memory: a mapping is an operator's own program, and `def f: f; f` is one.

Programs run in a process of their own, one for this whole process, which ends when a run exceeds a limit; the next run
starts another. To compile one takes milliseconds, and is done here, once for each: the built-in resources of the
poller use a few programs dozens of times.
"""

from __future__ import annotations

import atexit
import json
import marshal
import os
import select
import signal
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import jq

from tallystream.schemas.errors import PermanentError
from tallystream.streams.process import jq_child
from tallystream.streams.process.children import spawn

SECONDS = 2.0
"""CPU time that one run may take."""
_TRIES = 2
"""Runs of a program whose process somebody else ended, such as the kernel when the machine has no memory left."""
_BY_OTHERS = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)


class TooLongError(PermanentError, ValueError):
    """A program exceeded its CPU time or memory."""

    code = "too_long"


@lru_cache(maxsize=1024)
def _compile(program: str) -> None:
    """Check that a program is valid. What is compiled is not kept, because another process runs it."""
    jq.compile(program)


class Jq:
    """A compiled program.

    Raises:
        ValueError: it is not a valid program; the message is JQ's.

    """

    def __init__(self, program: str) -> None:
        _compile(program)
        self._program = program

    def first(self, text: str, seconds: float = SECONDS) -> Any:
        """Return the first result on a JSON text, None if there is none.

        Raises:
            ValueError: it fails on it; the message is JQ's.
            TooLongError: it exceeds `seconds` of CPU time, or the memory that it may take.

        """
        return _PROCESS.run(self._program, text, everything=False, seconds=seconds)

    def all(self, text: str, seconds: float = SECONDS) -> list[Any]:
        """Return all results on a JSON text.

        Raises:
            ValueError: it fails on it; the message is JQ's.
            TooLongError: it exceeds `seconds` of CPU time, or the memory that it may take.

        """
        found: list[Any] = _PROCESS.run(self._program, text, everything=True, seconds=seconds)
        return found

    def all_of(self, value: object) -> list[Any]:
        """Return all results on a value."""
        return self.all(json.dumps(value))


class _Process:
    """The process, started when it is needed. Safe for threads: one run at a time."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def run(self, program: str, text: str, *, everything: bool, seconds: float) -> Any:
        with self._lock:
            for _ in range(_TRIES):
                child = self._child
                if child is None or child.poll() is not None:
                    self._end()
                    child = self._child = self._started()
                try:
                    ok, value = self._ask(child, (program, text, everything, seconds))
                except (OSError, EOFError):  # it has ended, or is about to
                    if child.wait() not in _BY_OTHERS:
                        break
                else:
                    if not ok:
                        raise ValueError(value)
                    return value
            raise TooLongError(f"it does not end within {seconds:g} s of CPU time, or takes too much memory")

    def _started(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-I", str(Path(jq_child.__file__).resolve())]
        child = spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={})
        assert child.stdin is not None
        assert child.stdout is not None
        os.set_blocking(child.stdin.fileno(), False)
        return child

    def _ask(self, child: subprocess.Popen[bytes], asked: tuple[str, str, bool, float]) -> Any:
        """Write the request and read the answer. Raises EOFError or OSError when the process has ended."""
        assert child.stdin is not None
        assert child.stdout is not None
        raw = marshal.dumps(asked)
        to, back = child.stdin.fileno(), child.stdout.fileno()
        left, answer, wanted = memoryview(jq_child.LENGTH.pack(len(raw)) + raw), bytearray(), jq_child.LENGTH.size
        while len(answer) < wanted:
            poll = select.poll()
            poll.register(back, select.POLLIN)
            if left:
                poll.register(to, select.POLLOUT)
            ready = dict(poll.poll())
            if to in ready and left:
                left = left[os.write(to, left[: 1 << 16]) :]
            if back in ready:
                got = os.read(back, 1 << 20)
                if not got:
                    raise EOFError
                answer += got
                if len(answer) >= jq_child.LENGTH.size:
                    wanted = jq_child.LENGTH.size + jq_child.LENGTH.unpack_from(answer)[0]
        return marshal.loads(memoryview(answer)[jq_child.LENGTH.size :])  # noqa: S302 - our own child's

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


_PROCESS = _Process()
atexit.register(_PROCESS.close)
