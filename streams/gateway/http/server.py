"""aiohttp's low-level server, made to keep OTLP's rules where it would answer by itself: requests it cannot parse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from http import HTTPStatus

from aiohttp import web

from tallystream.streams.gateway.config import GatewayConfig
from tallystream.streams.gateway.errors import RequestRefusedError
from tallystream.streams.gateway.http.handler import Handler
from tallystream.streams.gateway.http.responses import Replies
from tallystream.streams.gateway.http.tls import Certificate
from tallystream.streams.service.clock import Clock
from tallystream.streams.service.log_throttle import Seldom

KEEP_ALIVE = 75.0
LINGER = 2.0
"""How long the rest of a refused body is read and thrown away, so that its sender sees the answer."""
CLOSE = 1.0
"""For connections that are still busy after all that."""
BACKLOG = 1024
_silent = logging.getLogger("tallystream.http")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class _Connection(web.RequestHandler):
    """One client connection. aiohttp's own log would quote the request line, which holds the ingest id: it is off."""

    __slots__ = ("complaints", "replies")
    replies: Replies
    complaints: Seldom

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """Answer what never reached our handler: 4xx as they are, anything else 503, never 500."""
        self.complaints.warning(status=status, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionResetError
        refused = (
            RequestRefusedError(status, f"not a valid HTTP request: {HTTPStatus(status).phrase}")
            if status < 500
            else RequestRefusedError(503, "the gateway failed, send it again", retry_after=5)
        )
        response = self.replies.refusal(refused, None)
        response.force_close()
        return response


class _Server(web.Server):
    def __init__(self, handler: Handler, replies: Replies, complaints: Seldom) -> None:
        super().__init__(handler)
        self._replies = replies
        self._complaints = complaints

    def __call__(self) -> web.RequestHandler:
        connection = _Connection(
            self,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # None turns it off, web_protocol.py asks `if access_log`
            logger=_silent,
            keepalive_timeout=KEEP_ALIVE,
            lingering_time=LINGER,
        )
        connection.replies = self._replies
        connection.complaints = self._complaints
        return connection


class HttpServer:
    """Listens on the configured address; `stop` lets requests in progress finish."""

    def __init__(self, config: GatewayConfig, handler: Handler, replies: Replies, clock: Clock) -> None:
        self._config = config
        self._handler = handler
        self._replies = replies
        self._runner = web.ServerRunner(_Server(handler, replies, Seldom(clock, "not_http")), shutdown_timeout=CLOSE)
        self._certificate = Certificate(config.tls_cert, config.tls_key) if config.tls_cert and config.tls_key else None
        self.address = ("", 0)

    @property
    def scheme(self) -> str:
        """Return `http` or `https`."""
        return "https" if self._certificate else "http"

    def refresh_certificate(self) -> None:
        """Serve new connections with the certificate that its files hold now."""
        if self._certificate is not None:
            self._certificate.refresh()

    async def start(self) -> None:
        """Listen; `address` then holds the real port.

        Raises:
            OSError: the address is taken or not ours.

        """
        await self._runner.setup()
        config = self._config
        site = web.TCPSite(
            self._runner,
            config.host,
            config.port,
            ssl_context=self._certificate.context if self._certificate else None,
            backlog=BACKLOG,
            reuse_port=config.reuse_port or None,
        )
        await site.start()
        self.address = self._runner.addresses[0][:2]

    async def stop(self) -> None:
        """Stop accepting, answer what has been accepted (at most `stop_timeout` seconds), close every connection."""
        self._replies.closing = True
        for site in self._runner.sites:
            await site.stop()
        with contextlib.suppress(TimeoutError):
            # aiohttp's own shutdown would throw away the rest of a body that is still arriving.
            async with asyncio.timeout(self._config.stop_timeout):
                await self._handler.quiet()
        await self._runner.cleanup()
