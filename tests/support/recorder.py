"""An HTTP server that records what a simulated fleet sends, with answers chosen by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from aiohttp import web
from tests.support.oracle import Used, read_logs, usage

Answer = Callable[[int, web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Gateway:
    """Records requests and answers."""

    url: str = ""
    requests: list[tuple[str, dict[str, str], bytes, int | None]] = field(default_factory=list)
    """Path, headers, body and status of each."""

    def used(self, *statuses: int | None) -> set[Used]:
        """Return the responses in the logs requests that got this status."""
        return {
            response
            for path, headers, body, status in self.requests
            if path.endswith("/v1/logs") and status in statuses
            for response in usage(read_logs(body, headers["Content-Type"]))
        }


@asynccontextmanager
async def gateway(answer: Answer) -> AsyncIterator[Gateway]:
    """Serve on a free port; `answer` gets the request's number."""
    seen, numbers = Gateway(), count()

    async def handle(request: web.Request) -> web.StreamResponse:
        number = next(numbers)
        entry = (request.path, dict(request.headers), await request.read())
        try:
            response = await answer(number, request)
        except ConnectionResetError:
            seen.requests.append((*entry, None))
            assert request.transport is not None
            request.transport.abort()
            raise
        seen.requests.append((*entry, response.status))
        return response

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    seen.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield seen
    finally:
        await runner.cleanup()


async def accept(_: int, __: web.Request) -> web.Response:
    return web.Response(status=200)
