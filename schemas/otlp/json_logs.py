"""Logs in JSON: a record's attributes are decoded only when a name may be that of a token count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from tallystream.schemas.compiled import COMPILED
from tallystream.schemas.otlp.json_attributes import described
from tallystream.schemas.otlp.json_frames import PARSED_WHOLE
from tallystream.schemas.otlp.json_memory import memory_allowed
from tallystream.schemas.otlp.json_parsed import candidates
from tallystream.schemas.otlp.json_records import is_wanted, record_of
from tallystream.schemas.otlp.json_scan import ByteRange
from tallystream.schemas.otlp.json_usual import Found, UsualLogs
from tallystream.schemas.otlp.json_values import text, utf8
from tallystream.schemas.otlp.limits import LIMITS, DecodingBudget, Limits
from tallystream.schemas.otlp.records import TOKENS, BrokenRecord, LogRecord, LogsBody, RecordHint, Value


def read_logs(body: bytes, limits: Limits = LIMITS, hint: RecordHint = TOKENS) -> LogsBody:
    """Decode an ExportLogsServiceRequest.

    Raises:
        InvalidBodyError: now, or while walking the candidates: its records cannot be separated, or it exceeds a limit.

    """
    body = utf8(body)
    usual = read_usual(body, limits, hint) if COMPILED else None
    return read_parsed(body, limits, hint) if usual is None else usual


def read_parsed(body: bytes, limits: Limits = LIMITS, hint: RecordHint = TOKENS) -> LogsBody:
    """Decode an ExportLogsServiceRequest as `read_logs`, also a usual one with a JSON parser."""
    tally = DecodingBudget(limits)
    return LogsBody(tally, candidates(body, tally, hint))


def read_usual(body: bytes, limits: Limits = LIMITS, hint: RecordHint = TOKENS) -> LogsBody | None:
    """Decode a body in the usual form, of which only the records that the hint may find are parsed; None for others."""
    if len(body) > PARSED_WHOLE:
        return None
    tally = DecodingBudget(limits)
    logs = UsualLogs(body, hint, tally)
    if not logs.find(memory_allowed(len(body))):
        return None
    try:
        parsed = [orjson.loads(body[found.start : found.stop]) for found in logs.found]
    except orjson.JSONDecodeError:
        return None
    return LogsBody(tally, _found(body, logs.found, parsed, tally, hint))


def _found(
    body: bytes, places: Sequence[Found], parsed: Sequence[dict[str, Any]], tally: DecodingBudget, hint: RecordHint
) -> Iterator[LogRecord | BrokenRecord]:
    owner: ByteRange | None = None
    shown: dict[str, Value] = {}
    for place, record in zip(places, parsed, strict=True):
        if not is_wanted(record, hint):
            continue
        if owner is not place.resource:
            owner = place.resource
            shown = described(_object(body, owner))
        tally.usage_record()
        yield record_of(record, place.number, text(_object(body, place.scope), "name"), shown, tally.limits)


def _object(body: bytes, span: ByteRange) -> dict[str, Any]:
    """Return an object that is in the usual form, empty when there is none."""
    found: dict[str, Any] = orjson.loads(body[span.start : span.stop]) if span.stop else {}
    return found
