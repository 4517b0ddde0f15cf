"""Reads a request's body with limits on size and time; an incomplete body is refused."""

from __future__ import annotations

import asyncio

from aiohttp import StreamReader, web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError

from tallystream.streams.gateway.acceptance import Body
from tallystream.streams.gateway.budget import Lease
from tallystream.streams.gateway.decompress import coding_named, coding_of, too_large
from tallystream.streams.gateway.errors import RequestRefusedError


async def read(request: web.BaseRequest, *, limit: int, idle: float, within: float, lease: Lease) -> Body:
    """Read the body as sent: every part of it within `idle` seconds of the one before, all within `within`.

    Raises:
        RequestRefusedError: 400 unknown Content-Encoding or broken framing, 408 too slow, 413 too large, 503 too many
            bytes in memory.

    """
    coding = coding_named(request.headers.get("Content-Encoding"))
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
                while part := await _next(content, idle):
                    size += len(part)
                    if size > limit:
                        raise too_large(limit)
                    lease.take(len(part))
                    parts.append(part)
            raw = b"".join(parts)
    except TimeoutError:
        raise RequestRefusedError(
            408,
            f"no part of the body arrived for {idle:.0f} s, or it was not complete within {within:.0f} s",
            headers={"Connection": "close"},
        ) from None
    except (web.RequestPayloadError, ClientPayloadError, HttpProcessingError, ConnectionError) as ended:
        # The stream keeps this error, whose traceback leads to what has been read: a cycle that may stay for long.
        ended.__traceback__ = None
        raise RequestRefusedError(400, "the body ended before it was complete") from None
    if len(raw) > limit:
        raise too_large(limit)
    return Body(raw, coding or coding_of(raw))


async def _next(content: StreamReader, idle: float) -> bytes:
    async with asyncio.timeout(idle):
        return await content.readany()
