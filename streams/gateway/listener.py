"""aiohttp's low-level server, made to keep OTLP's rules where it would answer by itself: requests it cannot parse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from http import HTTPStatus

import structlog
from aiohttp import web

from tallystream.streams.gateway.config import GatewayConfig
from tallystream.streams.gateway.errors import Refused
from tallystream.streams.gateway.replies import Replies
from tallystream.streams.gateway.server import Handler

KEEP_ALIVE = 75.0
LINGER = 2.0
"""How long the rest of a refused body is read and thrown away, so that its sender sees the answer."""
CLOSE = 1.0
"""For connections that are still busy after all that."""
BACKLOG = 1024
log = structlog.get_logger()
_silent = logging.getLogger("tallystream.http")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class _Connection(web.RequestHandler):
    """One client connection. aiohttp's own log would quote the request line, which holds the ingest id: it is off."""

    __slots__ = ("replies",)
    replies: Replies

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """Answer what never reached our handler: 4xx as they are, anything else 503, never 500."""
        log.warning("bad_request" if status < 500 else "connection_failed", status=status, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionResetError
        refused = (
            Refused(status, f"not a valid HTTP request: {HTTPStatus(status).phrase}")
            if status < 500
            else Refused(503, "the gateway failed, send it again", retry_after=5)
        )
        response = self.replies.refusal(refused, None)
        response.force_close()
        return response


class _Server(web.Server):
    def __init__(self, handler: Handler, replies: Replies) -> None:
        super().__init__(handler)
        self._replies = replies

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
        return connection


class HttpServer:
    """Listens on the configured address; `stop` lets requests in progress finish."""

    def __init__(self, config: GatewayConfig, handler: Handler, replies: Replies) -> None:
        self._config = config
        self._handler = handler
        self._replies = replies
        self._runner = web.ServerRunner(_Server(handler, replies), shutdown_timeout=CLOSE)
        self.address = ("", 0)

    async def start(self) -> None:
        """Listen; `address` then holds the real port.

        Raises:
            OSError: the address is taken or not ours.

        """
        await self._runner.setup()
        config = self._config
        site = web.TCPSite(
            self._runner, config.host, config.port, backlog=BACKLOG, reuse_port=config.reuse_port or None
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
            await asyncio.wait_for(self._handler.quiet(), self._config.stop_timeout)
        await self._runner.cleanup()
