"""The console: serves pages and API until it is told to stop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from tallystream.agents.pricing.book import Book
from tallystream.console.app import ConsoleApp
from tallystream.console.auth import ConsoleAuthenticator
from tallystream.console.build import stamp
from tallystream.console.config import ConsoleConfig
from tallystream.console.health import HealthReader
from tallystream.console.links import URL_FILE
from tallystream.console.metrics import ConsoleMetrics
from tallystream.schemas.errors import UsageError
from tallystream.schemas.status import ConsoleStatus
from tallystream.streams.service.clock import Clock, SystemClock, utc
from tallystream.streams.service.ops import Health

log = structlog.get_logger()
GOODBYE = 3.0
"""Seconds that requests in progress get to finish at the end."""


class Console:
    """The work of a console process: `run` until cancelled."""

    def __init__(self, config: ConsoleConfig, registry: CollectorRegistry, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._metrics = ConsoleMetrics(registry)
        self._url = ""

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            UsageError: the port is taken, or the folder for logins cannot be written.

        """
        config = self._config
        port = config.port
        try:
            auth = ConsoleAuthenticator(config.auth, config.directory, port)
        except OSError as exc:
            raise UsageError(
                f"{config.directory} cannot be written: {exc.strerror}", "choose another --data-dir"
            ) from exc
        # Compiling the price book takes a moment, and pages need it, so the port opens only afterwards.
        book = config.book if config.book is not None else await asyncio.to_thread(Book)
        health = HealthReader(config.examine, config.place, lambda: stamp(utc(self._clock.now_ns())))
        app = ConsoleApp(config, self._clock, self._metrics, auth, book, health)
        runner = web.AppRunner(app.application, access_log=None, shutdown_timeout=GOODBYE)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, config.host, port).start()
            except OSError as exc:
                raise UsageError(
                    f"cannot listen on port {port} at {config.host}: {exc.strerror or exc}", "choose another --port"
                ) from exc
            address = runner.addresses[0]
            host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host  # noqa: S104 - compared, not bound
            self._url = f"http://[{host}]:{address[1]}" if ":" in host else f"http://{host}:{address[1]}"
            await asyncio.to_thread(_tell_url, config.directory / URL_FILE, self._url)
            log.info("console_serves", url=self._url, auth=config.auth.kind)
            await asyncio.Event().wait()
        finally:
            await app.live.close()
            await runner.cleanup()
            self._url = ""

    def healthy(self) -> Health:
        """Return whether requests are answered, which this call itself shows."""
        return Health(ok=True)

    def ready(self) -> Health:
        """Return whether the port is open."""
        return Health(ok=bool(self._url), why="" if self._url else "it is starting")

    def status(self) -> ConsoleStatus:
        """Return the console's status."""
        return ConsoleStatus(url=self._url, auth=self._config.auth.kind)


def _tell_url(path: Path, url: str) -> None:
    """Write the address for `tallystream console link`."""
    path.write_text(url)
