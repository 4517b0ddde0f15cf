"""Logs in protobuf: the frame is decoded, a record only when its bytes may hold token counts.

The frame of a small valid body is parsed by protobuf. A larger body is walked field by field instead, because parsing
it whole would need many times its size in memory and block all other requests meanwhile. So is an invalid body, which
protobuf would refuse as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError

from tallystream.schemas.compiled import COMPILED
from tallystream.schemas.otlp import protobuf_scan, wire
from tallystream.schemas.otlp.limits import LIMITS, DecodingBudget, Limits
from tallystream.schemas.otlp.protobuf_frames import Frames, is_log_record, refuse_other_shapes
from tallystream.schemas.otlp.protobuf_messages import LogsRequest
from tallystream.schemas.otlp.protobuf_records import record, resource_attributes
from tallystream.schemas.otlp.records import TOKENS, BrokenRecord, LogRecord, LogsBody, RecordHint, Value
from tallystream.schemas.otlp.shared_resource import SharedResource, shared_resource

PARSED_WHOLE: Final = 256 << 10
"""Largest body, in bytes, whose frame protobuf parses: with two bytes per element it briefly needs 10 MB."""


def read_logs(body: bytes, limits: Limits = LIMITS, hint: RecordHint = TOKENS) -> LogsBody:
    """Decode an ExportLogsServiceRequest.

    Raises:
        InvalidBodyError: now, or while walking the candidates: its records cannot be separated, or it exceeds a limit.

    """
    if COMPILED and len(body) <= PARSED_WHOLE and protobuf_scan.is_usual(body):
        tally = DecodingBudget(limits)
        return LogsBody(tally, iter(protobuf_scan.records(body, tally, hint)))
    return read_parsed(body, limits, hint)


def read_parsed(body: bytes, limits: Limits = LIMITS, hint: RecordHint = TOKENS) -> LogsBody:
    """Decode an ExportLogsServiceRequest as `read_logs`, also a usual one with protobuf's parser."""
    tally = DecodingBudget(limits)
    request = _request(body) if len(body) <= PARSED_WHOLE else None
    if request is None or not _plainly_logs(request):
        refuse_other_shapes(body, "logs", limits)
    if request is None:
        return LogsBody(tally, _walked(body, tally, hint))
    return LogsBody(tally, _parsed(request, tally, hint, marked=hint.mark in body))


def _request(body: bytes) -> Any:
    try:
        return LogsRequest.FromString(body)
    except DecodeError:
        return None


def _plainly_logs(request: Any) -> bool:
    """Whether the first record can only be a log record, so that no other signal needs to be considered."""
    for resource in request.resources:
        for scope in resource.scopes:
            for raw in scope.records:
                return is_log_record(raw)
    return False


def _parsed(
    request: Any, tally: DecodingBudget, hint: RecordHint, *, marked: bool
) -> Iterator[LogRecord | BrokenRecord]:
    """Walk a parsed request. `marked`: the hint's mark occurs in the body, so its records must be looked at."""
    mark, matches, limits = hint.mark, hint.raw.search, tally.limits
    for resource in request.resources:
        tally.frame()
        described: SharedResource | None = None
        for scope in resource.scopes:
            tally.frame()
            records = scope.records
            index = tally.records
            tally.record(len(records))
            if not marked:
                continue
            name: str | None = None
            for place, raw in enumerate(records, index):
                if (at := raw.find(mark)) >= 0 and matches(raw, at):
                    tally.usage_record()
                    if name is None:
                        name = scope.scope.name
                    if described is None:
                        # of a message that occurs twice, protobuf merges the parts
                        described = shared_resource(b"".join(resource.resource), limits)
                    found = record(raw, place, name, described, limits, hint)
                    if found is not None:
                        yield found


def _walked(body: bytes, tally: DecodingBudget, hint: RecordHint) -> Iterator[LogRecord | BrokenRecord]:
    """Walk the wire format. Undecodable remains are yielded last, as one broken record."""
    frames = Frames(body, tally)
    limits = tally.limits
    mark = body.find(hint.mark)
    owner = inside = None
    described: dict[str, Value] = {}
    name = ""
    for resource, scope, found in frames.items():
        if 0 <= mark < found.start:
            mark = body.find(hint.mark, found.start)
        if not 0 <= mark < found.stop or not hint.raw.search(body, found.start, found.stop):
            continue
        if owner is not resource:
            owner, described = resource, resource_attributes(body, resource, limits)
        if inside is not scope:
            inside, name = scope, _name(body, scope)
        tally.usage_record()
        made = record(body[found.start : found.stop], tally.records - 1, name, described, limits, hint)
        if made is not None:
            yield made
    if frames.damaged:
        tally.record()
        yield BrokenRecord(tally.records - 1, "a part of the body is not OTLP; it may have been cut off")


def _name(body: bytes, scope: wire.Field) -> str:
    """Return the scope's name. It usually precedes the records, but this is not guaranteed."""
    scopes = (f for f in wire.fields(body, scope.start, scope.stop) if (f.number, f.kind) == (1, wire.LEN))
    named = next(scopes, None)
    if named is None:
        return ""
    inner = wire.fields(body, named.start, named.stop)
    return next((wire.text(body, f) for f in inner if (f.number, f.kind) == (1, wire.LEN)), "")
