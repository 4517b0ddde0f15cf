"""Starts, watches, restarts and stops one component."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import aiohttp

from tallystream.schemas.errors import TallystreamError, error_of_exit
from tallystream.schemas.run import RunningComponent
from tallystream.streams.process import tcp_ports
from tallystream.streams.process.children import bound_argv
from tallystream.streams.service.backoff import Backoff, FailureBackoff
from tallystream.supervisor.environment import environment_of
from tallystream.supervisor.logfile import LogFile, important
from tallystream.supervisor.specs import OPS_PORT, ComponentSpec, Timing

USAGE_EXIT = 2
"""Exit code for wrong usage, which a restart cannot correct."""
FIRST_START_ATTEMPTS = 5
MISSES = 3
LINE_BYTES = 1 << 20
OWN_ENVIRONMENT = {
    "TALLYSTREAM_TRACEBACK": "1",
    # The ops ports are on this machine.
    "TALLYSTREAM_OPS_HOST": "127.0.0.1",
    "PYTHONUNBUFFERED": "1",
    "NO_COLOR": "1",
}


class FirstStartError(TallystreamError):
    """A component did not become ready at the first start. `message` and `hint` are from its last error."""

    code = "first_start"

    def __init__(self, name: str, exit_code: int | None, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.name = name
        self.cause = error_of_exit(exit_code)
        """The kind of error that the component ended with."""
        self.exit_code, self.retryable = self.cause.exit_code, self.cause.retryable


class Answer(Enum):
    """The result of a health check. NONE: no answer, because the process is stopped, blocked or not started yet."""

    GREEN = auto()
    RED = auto()
    NONE = auto()


@dataclass(frozen=True)
class Events:
    """Callbacks from a child to its supervisor."""

    ready: Callable[[], None]
    """The component became ready, for the first time or again."""
    say: Callable[[str, str], None]
    """(component, text): an action of the supervisor."""
    warn: Callable[[str, str], None]
    """(component, text): a warning or error from its log."""


class Child:
    """Keeps one component running until told to stop.

    A component that exits is restarted after a backoff. One that stays unhealthy or unreachable is ended first.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        timing: Timing,
        log: LogFile,
        http: aiohttp.ClientSession,
        events: Events,
        *,
        give_up: bool = True,
    ) -> None:
        self.spec = spec
        self._give_up = give_up
        self._timing = timing
        self._log = log
        self._http = http
        self._events = events
        self._backoff = FailureBackoff(Backoff(timing.backoff_first, timing.backoff_most), timing.stable)
        self._process: asyncio.subprocess.Process | None = None
        self._ops_port = 0
        self._reader: asyncio.Task[None] | None = None
        self._was_ready = False
        self.ready = asyncio.Event()
        """Set while it is ready."""
        self.tried = asyncio.Event()
        """Set once it has been ready, or has failed so often that `up` should no longer wait for it."""

    @property
    def begun(self) -> bool:
        """Return whether its process has been started once."""
        return self._process is not None

    @property
    def component(self) -> RunningComponent:
        """Return its entry of run.json, once it has been ready."""
        assert self._process is not None
        pid = self._process.pid
        if self.spec.pid_file is not None:
            with contextlib.suppress(OSError, ValueError):
                pid = int(self.spec.pid_file.read_text())
        return RunningComponent(name=self.spec.name, pid=pid, ops_url=f"http://127.0.0.1:{self._ops_port}")

    async def run(self) -> None:
        """Keep it running until cancelled. `stop` ends the process.

        Raises:
            FirstStartError: it never became ready, and giving up is allowed.

        """
        attempts = 0
        while True:
            attempts += 1
            began = time.monotonic()
            await self._start()
            why = await self._watch()
            self.ready.clear()
            code = self._process.returncode if self._process is not None else None
            if not self._was_ready and (code == USAGE_EXIT or attempts >= FIRST_START_ATTEMPTS):
                message, hint = self._log.last_error()
                failed = FirstStartError(self.spec.name, code, message, hint or f"its log: {self._log.path}")
                if self._give_up:
                    raise failed
                if not self.tried.is_set():
                    self._events.say(
                        self.spec.name,
                        f"does not start: {failed.message} ({failed.hint}); everything else keeps running",
                    )
                self.tried.set()
            delay = self._backoff.after_run(time.monotonic() - began)
            # One that never started has already reported why. It is retried, because a missing file may still appear.
            if self._was_ready or not self.tried.is_set():
                self._events.say(self.spec.name, f"{why}; restarting it in {delay:g} s")
            await asyncio.sleep(delay)

    async def stop(self, *, hurry: asyncio.Event) -> None:
        """End the process with SIGTERM, or SIGKILL if it takes too long or `hurry` is set. Cancel `run` before."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._terminate()
        ended = asyncio.ensure_future(process.wait())
        hurried = asyncio.ensure_future(hurry.wait())
        await asyncio.wait((ended, hurried), timeout=self._timing.stop, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not ended.done():
            if not hurry.is_set():
                self._events.say(self.spec.name, f"did not stop within {self._timing.stop:g} s, killed")
            self._kill()
        await ended
        await self._drained()

    async def _start(self) -> None:
        if not self._ops_port or not tcp_ports.is_free(self._ops_port):
            self._ops_port = tcp_ports.pick()
        argv = [argument.replace(OPS_PORT, str(self._ops_port)) for argument in self.spec.argv]
        self._process = await asyncio.create_subprocess_exec(
            *bound_argv(argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
            limit=LINE_BYTES,
            env=environment_of(self.spec.name, os.environ, OWN_ENVIRONMENT),
        )
        self._reader = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue  # The line was longer than the limit, and asyncio has dropped it.
            if not line:
                return
            # A full disk must not stop the reading, because the component would block once its pipe is full.
            with contextlib.suppress(OSError):
                self._log.write(line)
            if text := important(line, quiet=self.spec.quiet):
                self._events.warn(self.spec.name, text)

    async def _watch(self) -> str:
        """Watch a run to its end and return why it ended. Ends it if it stays unhealthy."""
        assert self._process is not None
        process = self._process
        ended = asyncio.create_task(process.wait())
        green = False  # whether it has been ready in this run
        last_green, misses = time.monotonic(), 0
        try:
            while True:
                pause = self._timing.health if self.ready.is_set() else self._timing.poll
                await asyncio.wait((ended,), timeout=pause)
                if ended.done():
                    await self._drained()
                    return f"exited with {_exit(process.returncode)}"
                answer = await self._ask("/healthz")
                if answer is Answer.GREEN:
                    green, last_green, misses = True, time.monotonic(), 0
                    await self._follow_readiness()
                    continue
                misses += 1
                patience = self._timing.red if green else self._timing.start
                # Several in a row, because a supervisor that was itself stopped (Ctrl-Z) has not checked meanwhile.
                if misses >= MISSES and time.monotonic() - last_green > patience:
                    await self._end(ended, self._timing.stop if answer is Answer.RED else self._timing.deaf)
                    return "was not healthy and had to be ended" if green else "did not start and had to be ended"
        finally:
            ended.cancel()

    async def _follow_readiness(self) -> None:
        ready = await self._ask("/readyz") is Answer.GREEN
        if ready and not self.ready.is_set():
            self.ready.set()
            self.tried.set()
            again = " again" if self._was_ready else ""
            self._events.say(self.spec.name, f"ready{again}")
            self._was_ready = True
            self._events.ready()
        elif not ready:
            self.ready.clear()

    async def _end(self, ended: asyncio.Task[int], patience: float) -> None:
        self._terminate()
        await asyncio.wait((ended,), timeout=patience)
        if not ended.done():
            self._kill()
            await ended
        await self._drained()

    async def _drained(self) -> None:
        """Wait until its last lines are in the log, but not for a grandchild that holds the pipe."""
        if self._reader is not None:
            await asyncio.wait((self._reader,), timeout=1.0)
            self._reader.cancel()

    async def _ask(self, path: str) -> Answer:
        try:
            async with self._http.get(
                f"http://127.0.0.1:{self._ops_port}{path}", timeout=aiohttp.ClientTimeout(total=self._timing.answer)
            ) as response:
                return Answer.GREEN if response.status == 200 else Answer.RED
        except (aiohttp.ClientError, TimeoutError, OSError):
            return Answer.NONE

    def _terminate(self) -> None:
        """Send SIGTERM. A stopped process (SIGSTOP, Ctrl-Z) must also be continued to receive it."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)

    def _kill(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
