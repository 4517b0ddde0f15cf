"""aiohttp's low-level server, changed to follow OTLP's rules for requests that it cannot parse and answers by
itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo
from typing_extensions import override

from tallystream.schemas.otlp import Encoding
from tallystream.streams.gateway.config import GatewayConfig
from tallystream.streams.gateway.errors import MAX_HEAD, RequestRefusedError, head_too_long
from tallystream.streams.gateway.http.acceptor import Acceptor, connection_limit
from tallystream.streams.gateway.http.handler import Handler
from tallystream.streams.gateway.http.responses import Replies
from tallystream.streams.gateway.http.tls import Certificate
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.repeated import repeated_header
from tallystream.streams.service.clock import Clock
from tallystream.streams.service.log_throttle import LogThrottle

KEEP_ALIVE: Final = 75.0
LINGER: Final = 2.0
"""Seconds for which the rest of a refused body is read and discarded, so that the client receives the response."""
FIRST_REQUEST: Final = 30.0
"""Seconds within which a new connection must have sent the head of a request."""
CLOSE: Final = 1.0
"""Seconds for closing connections that are still busy after `stop_timeout`."""
_SHORTEST_HEADER: Final = 4
"""Bytes of `a:` and its line end: the number of headers is limited only by their length."""
_PROTOBUF: Final = re.compile(rb"(?im)^content-type:[ \t]*application/x-protobuf")
_silent = logging.getLogger("tallystream.http")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class _HeadTooLongError(Exception):
    """The headers together are too long, although each one is within the limit."""


class _Connection(web.RequestHandler):
    """One client connection. aiohttp's own log is off, because it would quote the request line, which contains the
    ingest id.
    """

    __slots__ = ("_first", "_head", "_looks_protobuf", "busy", "closed", "complaints", "replies")
    replies: Replies
    complaints: LogThrottle
    busy: Callable[[], None]
    closed: Callable[[], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to count the bytes of the first request's head."""
        self._head = 0
        self._looks_protobuf = False
        super().connection_made(transport)
        self._first = self._loop.call_later(FIRST_REQUEST, self._drop_silent)

    def _drop_silent(self) -> None:
        if not self.requested:
            self.drop()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the acceptor."""
        super().connection_lost(exc)
        self._first.cancel()
        self.closed()

    @property
    def requested(self) -> bool:
        """Whether it has ever sent a request."""
        return self._request_count > 0

    @property
    def idle(self) -> bool:
        """Whether a request is neither being read nor answered."""
        # aiohttp waits on this future only between two requests
        waiting = self._waiter is not None and not self._waiter.done()
        return not self._messages and (waiting or not self.requested)

    def drop(self) -> None:
        """Close it at once."""
        self.force_close()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and check that the head so far is not too long."""
        before = self._request_count
        super().data_received(data)
        if self._request_count > before:
            self._head = 0
            if isinstance(self._messages[-1][0] if self._messages else None, _ErrInfo):
                self._looks_protobuf = bool(_PROTOBUF.search(data))
            self.busy()
        elif self.idle and not self._close and not self._force_close:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._looks_protobuf = bool(_PROTOBUF.search(data))
                self._messages.append((_ErrInfo(431, _HeadTooLongError(), ""), EMPTY_PAYLOAD))
                if self._waiter is not None and not self._waiter.done():
                    self._waiter.set_result(None)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume what has been paused. aiohttp calls this twice for each body, and parses an empty piece of data."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # aiohttp's never keeps a connection half open
        """Keep answering a client that has closed its sending side; TLS does not support half-closed connections."""
        if self.idle or self.transport is None or self.transport.get_extra_info("sslcontext") is not None:
            return None
        request = self._current_request
        if request is not None and not request.content.is_eof():
            request.content.set_exception(ClientPayloadError("the client ended the connection"))
        self.close()
        return True

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer requests that never reached our handler: 4xx unchanged, anything else as 503, never 500."""
        self.complaints.warning(status=status, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionResetError
        if isinstance(exc, LineTooLong | _HeadTooLongError):
            refused = head_too_long()
        elif (name := repeated_header(exc)) is not None:
            refused = RequestRefusedError(status, f"more than one header {name}: send it once")
        elif status < 500:
            refused = RequestRefusedError(status, f"not a valid HTTP request: {HTTPStatus(status).phrase}")
        else:
            refused = RequestRefusedError(503, "the gateway failed, send it again", retry_after=5)
        encoding = Encoding.PROTOBUF if self._looks_protobuf else None
        response = self.replies.refusal(refused, encoding)
        response.force_close()
        return response


class _Server(web.Server):
    def __init__(self, handler: Handler, replies: Replies, complaints: LogThrottle) -> None:
        super().__init__(handler)
        self._replies = replies
        self._complaints = complaints

    def __call__(self) -> _Connection:
        connection = _Connection(
            self,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # None turns it off, web_protocol.py asks `if access_log`
            logger=_silent,
            keepalive_timeout=KEEP_ALIVE,
            lingering_time=LINGER,
            max_line_size=MAX_HEAD,
            max_field_size=MAX_HEAD,
            max_headers=MAX_HEAD // _SHORTEST_HEADER,
        )
        connection.replies = self._replies
        connection.complaints = self._complaints
        connection.busy = connection.closed = _nothing
        return connection


def _nothing() -> None:
    """Do nothing."""


class HttpServer:
    """Listens on the configured address; `stop` lets requests in progress finish."""

    def __init__(
        self, config: GatewayConfig, handler: Handler, replies: Replies, metrics: Metrics, clock: Clock
    ) -> None:
        self._config = config
        self._handler = handler
        self._replies = replies
        self._server = _Server(handler, replies, LogThrottle(clock, "not_http"))
        self._certificate = Certificate(config.tls_cert, config.tls_key) if config.tls_cert and config.tls_key else None
        self._acceptor = Acceptor(self.connection, connection_limit(config.max_connections), metrics, clock, self._tls)

    def connection(self) -> _Connection:
        """Return the protocol of a new connection."""
        connection = self._server()
        connection.busy = lambda: self._acceptor.busy(connection)
        return connection

    def _tls(self) -> ssl.SSLContext | None:
        return self._certificate.context if self._certificate else None

    @property
    def address(self) -> tuple[str, int]:
        """Return the host and port that the server listens on."""
        return self._acceptor.address

    @property
    def connections(self) -> int:
        """Return how many clients are connected."""
        return self._acceptor.connections

    @property
    def scheme(self) -> str:
        """Return `http` or `https`."""
        return "https" if self._certificate else "http"

    def refresh_certificate(self) -> None:
        """Serve new connections with the current contents of the certificate files."""
        if self._certificate is not None:
            self._certificate.refresh()

    async def start(self) -> None:
        """Start to listen; then `address` holds the actual port.

        Raises:
            OSError: the address is taken or not ours.

        """
        await self._acceptor.start(self._config.host, self._config.port, reuse_port=self._config.reuse_port)

    async def stop(self) -> None:
        """Stop accepting, answer accepted requests (for at most `stop_timeout` seconds), and close every connection."""
        self._replies.closing = True
        await self._acceptor.stop_listening()
        with contextlib.suppress(TimeoutError):
            # aiohttp's own shutdown would discard the rest of a body that is still arriving.
            async with asyncio.timeout(self._config.stop_timeout):
                await self._handler.quiet()
        await self._acceptor.close()
        await self._server.shutdown(CLOSE)
