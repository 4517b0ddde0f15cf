"""SIGUSR1 shows what a component waits for."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

from structlog.testing import capture_logs
from tests.support.waiting import until

from tallystream.components.harness import serve
from tallystream.streams.service.ops import Health


class Waiting:
    """A component that waits for ever."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()

    async def _never(self) -> None:
        self.waits.set()
        await asyncio.Event().wait()

    async def _records(self) -> AsyncIterator[int]:
        await self._never()
        yield 1

    async def run(self) -> None:
        async for _ in self._records():
            pass

    def healthy(self) -> Health:
        return Health(True)

    ready = healthy

    def status(self) -> None:
        return None


async def test_signal_shows_what_each_task_waits_for() -> None:
    component = Waiting()
    with capture_logs() as logs:
        serving = asyncio.create_task(serve("waiting", lambda *_: component, None, ops=("127.0.0.1", 0)))
        await component.waits.wait()
        os.kill(os.getpid(), signal.SIGUSR1)

        def shown() -> list[str] | None:
            waits = [line["waits"] for line in logs if line["event"] == "task"]
            return next((one for one in waits if any("Waiting.run" in frame for frame in one)), None)

        frames = await until(shown, "its task is shown")
        functions = [frame.partition(" ")[2] for frame in frames]
        assert functions[:4] == ["Waiting.run", "Waiting._records", "Waiting._never", "Event.wait"]
        assert all(frame.startswith("test_task_stacks.py:") for frame in frames[:3])
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
