"""Server-sent events that notify every open page soon after a change in the ledger.

The ledger is polled only while a page is open. An event names the topics that have changed; the page then reloads its
data.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import orjson
from aiohttp import web

from tallystream.console.metrics import ConsoleMetrics
from tallystream.schemas.errors import TallystreamError

BEAT = 15.0
"""Seconds between keep-alive messages of a silent stream."""
MOST = 200
"""Maximum number of open streams."""


class Live:
    """`look` returns a number for each topic that grows with its records. It may block, and may raise."""

    def __init__(self, look: Callable[[], Mapping[str, int]], every: float, metrics: ConsoleMetrics) -> None:
        self._look = look
        self._every = every
        self._metrics = metrics
        self._queues: set[asyncio.Queue[list[str] | None]] = set()
        self._task: asyncio.Task[None] | None = None

    async def stream(self, request: web.Request, still_in: Callable[[], bool]) -> web.StreamResponse:
        """Answer a request with events until the client disconnects or its login ends."""
        if len(self._queues) >= MOST:
            raise web.HTTPServiceUnavailable(text="too many pages are open")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        queue: asyncio.Queue[list[str] | None] = asyncio.Queue(maxsize=100)
        self._queues.add(queue)
        self._metrics.watching.set(len(self._queues))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            await response.write(b"retry: 2000\n\n")
            while still_in():
                try:
                    topics = await asyncio.wait_for(queue.get(), BEAT)
                except TimeoutError:
                    await response.write(b": still here\n\n")
                    continue
                if topics is None:
                    break
                await response.write(b"event: change\ndata: " + orjson.dumps({"topics": topics}) + b"\n\n")
        except ConnectionError:
            pass
        finally:
            self._queues.discard(queue)
            self._metrics.watching.set(len(self._queues))
        return response

    async def close(self) -> None:
        """End all streams."""
        for queue in list(self._queues):
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(None)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _watch(self) -> None:
        known: Mapping[str, int] | None = None
        while self._queues:
            try:
                now = await asyncio.to_thread(self._look)
            except TallystreamError:
                now = {}
            if known is not None and now != known:
                changed = sorted(topic for topic in {*now, *known} if now.get(topic) != known.get(topic))
                for queue in list(self._queues):
                    with contextlib.suppress(asyncio.QueueFull):
                        queue.put_nowait(changed)
            known = now
            await asyncio.sleep(self._every)
