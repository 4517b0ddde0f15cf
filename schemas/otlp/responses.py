"""Bodies of successful responses (OTLP specification, "Full Success" and "Partial Success")."""

from __future__ import annotations

import orjson

from tallystream.schemas.connections import Signal
from tallystream.schemas.otlp.encoding import Encoding
from tallystream.schemas.otlp.protobuf_messages import ExportResponse

_REJECTED = {"logs": "rejectedLogRecords", "metrics": "rejectedDataPoints", "traces": "rejectedSpans"}


def success(encoding: Encoding) -> bytes:
    """Return an Export*ServiceResponse with `partial_success` unset, as full success demands."""
    return b"" if encoding is Encoding.PROTOBUF else b"{}"


def partial_success(signal: Signal, rejected: int, message: str, encoding: Encoding) -> bytes:
    """Return an Export*ServiceResponse that says how many records were not accepted. The client does not retry them.

    With `rejected` 0 it is a warning: all was accepted, and `message` has advice.
    """
    if encoding is Encoding.JSON:
        # int64 is a string in protobuf's JSON mapping
        return orjson.dumps({"partialSuccess": {_REJECTED[signal]: str(rejected), "errorMessage": message}})
    body: bytes = ExportResponse(partial_success={"rejected": rejected, "error_message": message}).SerializeToString()
    return body
