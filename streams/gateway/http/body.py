"""Reading a request's body: bounded in bytes before and after decompression, bounded in time, and whole or refused.

aiohttp's own decompression is off: it answers a broken gzip with 500, a truncated one with 200 and has no budget over
the members of a gzip stream.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from aiohttp import web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError

from tallystream.streams.gateway.errors import RequestRefusedError, UndecodableError

THREAD_BYTES = 16 << 10
"""A larger compressed body is decompressed in a thread, where zlib lets go of the GIL: it may hold a thousandfold."""
_WBITS = {"gzip": 31, "zlib": 15, "deflate": 15}


class Budget:
    """Bytes of all requests being answered at one time, against one limit."""

    def __init__(self, limit: int, retry_after: int) -> None:
        self._limit = limit
        self._retry_after = retry_after
        self.bytes = 0

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Give a lease that returns its bytes at the end."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            self.bytes -= lease.bytes

    def take(self, size: int) -> None:
        """Count bytes in.

        Raises:
            RequestRefusedError: 503, the limit is reached.

        """
        if self.bytes + size > self._limit:
            raise RequestRefusedError(
                503, "the gateway holds as many request bytes as it may, send again", retry_after=self._retry_after
            )
        self.bytes += size


class Lease:
    """One request's share."""

    __slots__ = ("_budget", "bytes")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.bytes = 0

    def take(self, size: int) -> None:
        """Count bytes in; raises what `Budget.take` raises."""
        self._budget.take(size)
        self.bytes += size


class Body(NamedTuple):
    """`raw` is what came over the wire, `coding` the Content-Encoding ("" for none)."""

    raw: bytes
    coding: str


def coding_of(request: web.BaseRequest) -> str:
    """Return the Content-Encoding, "" for identity.

    Raises:
        RequestRefusedError: 400, it is none of ours.

    """
    coding = request.headers.get("Content-Encoding")
    if coding is None:
        return ""
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding == "x-gzip":
        return "gzip"
    if coding not in _WBITS:
        raise RequestRefusedError(400, "unknown Content-Encoding: use gzip, deflate or none")
    return coding


async def read(request: web.BaseRequest, *, limit: int, within: float, lease: Lease) -> Body:
    """Read the body as sent.

    Raises:
        RequestRefusedError: 400 unknown Content-Encoding or broken framing, 408 too slow, 413 too large,
            503 too much at once.

    """
    coding = coding_of(request)
    length = request.content_length
    if length is not None and length > limit:
        raise too_large(limit)
    content = request.content
    try:
        if content.is_eof():
            raw = content.read_nowait()
            lease.take(len(raw))
        else:
            async with asyncio.timeout(within):
                parts = []
                size = 0
                while part := await content.readany():
                    size += len(part)
                    if size > limit:
                        raise too_large(limit)
                    lease.take(len(part))
                    parts.append(part)
            raw = b"".join(parts)
    except TimeoutError:
        raise RequestRefusedError(
            408, f"the body did not arrive within {within:.0f} s", headers={"Connection": "close"}
        ) from None
    except (web.RequestPayloadError, ClientPayloadError, HttpProcessingError, ConnectionError):
        raise RequestRefusedError(400, "the body ended before it was complete") from None
    if len(raw) > limit:
        raise too_large(limit)
    return Body(raw, coding)


def too_large(limit: int) -> RequestRefusedError:
    """Return the 413."""
    return RequestRefusedError(413, f"the body is larger than {limit} bytes")


async def decode(body: Body, *, limit: int, lease: Lease) -> bytes:
    """Return the body decompressed, in a thread when it is large.

    Raises:
        UndecodableError: it is not, or not only, or not wholly, what its Content-Encoding says.
        RequestRefusedError: 413, more than `limit` bytes would come out; 503, too much at once.

    """
    if not body.coding:
        return body.raw
    if len(body.raw) > THREAD_BYTES:
        plain = await asyncio.to_thread(decompress, body.raw, body.coding, limit)
    else:
        plain = decompress(body.raw, body.coding, limit)
    lease.take(len(plain))
    return plain


def decompress(raw: bytes, coding: str, limit: int) -> bytes:
    """Decompress all members; never makes more than `limit` + 1 bytes, however many members there are.

    Raises:
        UndecodableError: garbage, truncated, or with something after its end.
        RequestRefusedError: 413.

    """
    parts: list[bytes] = []
    left = limit
    while True:
        member = zlib.decompressobj(_WBITS[coding])
        try:
            part = member.decompress(raw, left + 1)
        except zlib.error:
            if coding == "deflate" and not parts and raw:
                # Some clients mean raw deflate by it, as browsers once did.
                member = zlib.decompressobj(-15)
                try:
                    part = member.decompress(raw, left + 1)
                except zlib.error:
                    raise UndecodableError(f"the body is not {coding}") from None
            else:
                raise UndecodableError(f"the body is not {coding}") from None
        if len(part) > left:
            raise too_large(limit)
        left -= len(part)
        parts.append(part)
        if not member.eof:
            raise UndecodableError(f"the {coding} body is truncated")
        raw = member.unused_data
        if not raw:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        if coding != "gzip":
            raise UndecodableError(f"there is something after the end of the {coding} body")
