"""Reading a logs request in either encoding."""

from __future__ import annotations

from tallystream.schemas.otlp import json_logs, protobuf_logs
from tallystream.schemas.otlp.encoding import Encoding
from tallystream.schemas.otlp.records import LogsBody


def read_logs(body: bytes, encoding: Encoding) -> LogsBody:
    """Decode a logs request as far as usage needs it.

    Raises:
        InvalidBodyError: it is no such request.

    """
    return json_logs.read_logs(body) if encoding is Encoding.JSON else protobuf_logs.read_logs(body)
