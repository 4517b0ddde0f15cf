"""Reading a logs request in either encoding."""

from __future__ import annotations

from collections.abc import Iterator

from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp import json_logs, protobuf_logs
from tallystream.schemas.otlp.encoding import Encoding
from tallystream.schemas.otlp.limits import LIMITS, Limits
from tallystream.schemas.otlp.records import TOKENS, BrokenRecord, LogRecord, LogsBody, RecordHint


def read_logs(body: bytes, encoding: Encoding, limits: Limits = LIMITS, hint: RecordHint = TOKENS) -> LogsBody:
    """Decode a logs request as far as the records that `hint` finds.

    Raises:
        InvalidBodyError: now, or while walking the candidates: it is not a logs request, exceeds a limit, or its
            records cannot be separated.

    """
    read = json_logs.read_logs if encoding is Encoding.JSON else protobuf_logs.read_logs
    logs = read(body, limits, hint)
    logs.candidates = _some_sound(logs, logs.candidates)
    return logs


def _some_sound(logs: LogsBody, candidates: Iterator[LogRecord | BrokenRecord]) -> Iterator[LogRecord | BrokenRecord]:
    lost, why = 0, ""
    for found in candidates:
        if isinstance(found, BrokenRecord) and found.found is None:
            lost, why = lost + 1, why or found.why
        yield found
    if lost and lost == logs.records:
        raise InvalidBodyError(
            f"the body is not a valid OTLP request: {why}", "see the examples of opentelemetry-proto"
        )
