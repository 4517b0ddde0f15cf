"""`google.rpc.Status`: the body of every 4xx and 5xx (OTLP specification, "Failures")."""

from __future__ import annotations

from typing import Any

import orjson

from tallystream.schemas.otlp.encoding import Encoding
from tallystream.schemas.otlp.protobuf_messages import RetryInfo, Status

_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def status(code: int, message: str, encoding: Encoding, retry_delay: int | None = None) -> bytes:
    """Return a Status in the request's encoding.

    Args:
        code: a `google.rpc.Code`, such as 3 for INVALID_ARGUMENT.
        message: for people.
        encoding: of the request.
        retry_delay: seconds; adds a `google.rpc.RetryInfo`, which tells clients that a retry may succeed.

    """
    if encoding is Encoding.JSON:
        document: dict[str, Any] = {"code": code, "message": message}
        if retry_delay is not None:
            document["details"] = [{"@type": _RETRY_INFO, "retryDelay": f"{retry_delay}s"}]
        return orjson.dumps(document)
    details = []
    if retry_delay is not None:
        value = RetryInfo(retry_delay={"seconds": retry_delay}).SerializeToString()
        details.append({"type_url": _RETRY_INFO, "value": value})
    body: bytes = Status(code=code, message=message, details=details).SerializeToString()
    return body
