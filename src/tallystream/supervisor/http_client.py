"""Small HTTP requests to our own gateways and their ops ports, without a proxy."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from tallystream.schemas.errors import UnreachableError, UsageError


def request(
    method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, timeout: float = 10.0
) -> tuple[int, bytes]:
    """Send a request and return the status and body. A body that is sent is JSON.

    Raises:
        UsageError: the URL is not a valid http(s) URL.
        UnreachableError: no answer within `timeout` seconds. The message omits the URL's path, which may be secret.

    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"{parts.scheme or 'the address'} is not a valid http URL", "URLs look like http://127.0.0.1:4318"
        )
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    try:
        connection = kind(parts.hostname, parts.port, timeout=timeout)
        try:
            sent = dict(headers or {}) | ({"content-type": "application/json"} if body is not None else {})
            connection.request(method, parts.path or "/", body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError) as exc:
        raise UnreachableError(
            f"{parts.scheme}://{parts.netloc} did not answer: {str(exc) or type(exc).__name__}",
            "`tallystream status` shows what runs on this machine",
        ) from exc
