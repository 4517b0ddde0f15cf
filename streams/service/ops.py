"""Every component's ops port, on loopback by default.

`/healthz` (does it make progress?), `/readyz` (can it be used?), `/metrics` for Prometheus, `/status` for programs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import orjson
from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from pydantic import BaseModel

from tallystream.schemas.errors import UsageError

_CONTROLS = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")
"""C0 but for line breaks, DEL, and C1 in UTF-8."""


@dataclass(frozen=True)
class Health:
    """`ok` decides the status code; `why` is part of the response, so write it for the person on call."""

    ok: bool
    why: str = ""


class OpsServer:
    """Serves these paths on `host:port` (0 picks a free port, which `url` shows).

    `/metrics` shows `registry`; `/status` returns the result of `status`, or 404 without it.
    """

    def __init__(
        self,
        healthy: Callable[[], Health],
        ready: Callable[[], Health],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        registry: Collector = REGISTRY,
        status: Callable[[], BaseModel] | None = None,
    ) -> None:
        self._checks = {"/healthz": healthy, "/readyz": ready}
        self._host = host
        self._port = port
        self._registry = registry
        self._status = status
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.

        """
        app = web.Application()
        app.router.add_get("/healthz", self._check)
        app.router.add_get("/readyz", self._check)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/status", self._report)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]

    async def listen(self) -> None:
        """Start, for a component that cannot run without the ops port.

        Raises:
            UsageError: the port is taken, or the address does not belong to this machine.

        """
        try:
            await self.start()
        except OSError as exc:
            raise UsageError(
                f"cannot listen on the ops port {self._port} at {self._host}: {exc.strerror or exc}",
                "choose another --ops-port; TALLYSTREAM_OPS_HOST is the address, 127.0.0.1 by default",
            ) from exc

    async def stop(self) -> None:
        """Stop listening; has no effect when not started."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        """Return `http://host:port`, once started."""
        return f"http://[{self._host}]:{self._port}" if ":" in self._host else f"http://{self._host}:{self._port}"

    async def _check(self, request: web.Request) -> web.Response:
        health = self._checks[request.path]()
        body = orjson.dumps({"ok": health.ok, "why": health.why})
        return web.Response(status=200 if health.ok else 503, body=body, content_type="application/json")

    async def _report(self, _: web.Request) -> web.Response:
        if self._status is None:
            raise web.HTTPNotFound
        return web.Response(text=self._status().model_dump_json(), content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # Models and teams are the clients' words: the format escapes line breaks, quotes and nothing else.
        page = _CONTROLS.sub(lambda found: rb"\\x%02x" % found[0][-1], encode(self._registry))
        return web.Response(body=page, headers={"Content-Type": content_type})
