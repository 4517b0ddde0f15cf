"""Responses. A 200 without a message is prepared as bytes; every error is a google.rpc.Status."""

from __future__ import annotations

from email.utils import formatdate

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from tallystream.schemas.otlp import Encoding, status, success
from tallystream.streams.gateway.errors import GRPC_CODES, RequestRefusedError
from tallystream.streams.service.clock import Clock

SERVER = "tallystream"


class Prepared(web.StreamResponse):
    """A whole response as bytes, because building and serialising one costs more than the rest of a request.

    Only for HTTP/1.1 requests whose connection stays open.
    """

    def __init__(self, body: bytes, content_type: str, clock: Clock) -> None:
        super().__init__()
        lines = (
            "HTTP/1.1 200 OK",
            f"Server: {SERVER}",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body)}",
        )
        self._head = "\r\n".join((*lines, "Date: ")).encode()
        self._tail = b"\r\n\r\n" + body
        self._clock = clock
        self._second = 0
        self._bytes = b""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write it."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        second = self._clock.now_ns() // 1_000_000_000
        if second != self._second:
            self._second = second
            self._bytes = self._head + formatdate(second, usegmt=True).encode() + self._tail
        transport.write(self._bytes)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: `prepare` has written everything."""

    @property
    def keep_alive(self) -> bool:
        """Return True: the connection stays open."""
        return True


class Replies:
    """Builds the responses; while `closing`, every response closes its connection."""

    def __init__(self, clock: Clock) -> None:
        self.closing = False
        self._ok = {encoding: Prepared(success(encoding), encoding.value, clock) for encoding in Encoding}

    def success(self, request: web.BaseRequest, encoding: Encoding) -> web.StreamResponse:
        """Return the 200 of full success."""
        if self.closing or request.version != HttpVersion11 or not request.keep_alive:
            return self.answer(200, success(encoding), encoding)
        return self._ok[encoding]

    def refusal(self, refused: RequestRefusedError, encoding: Encoding | None) -> web.Response:
        """Return an error as google.rpc.Status, in JSON when the request's encoding is not supported."""
        encoding = encoding or Encoding.JSON
        code = GRPC_CODES.get(refused.status, 2)
        body = status(code, refused.message, encoding, refused.retry_after)
        response = self.answer(refused.status, body, encoding, refused.headers)
        if "Connection" in refused.headers:
            response.force_close()
        return response

    def answer(self, code: int, body: bytes, encoding: Encoding, headers: dict[str, str] | None = None) -> web.Response:
        """Return any answer."""
        response = web.Response(
            status=code, body=body, headers={"Content-Type": encoding.value, "Server": SERVER} | (headers or {})
        )
        if self.closing:
            response.force_close()
        return response
