"""Logs in protobuf: the frame is decoded, a record only when its bytes may hold token counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import DecodeError

from tallystream.schemas.otlp.protobuf_messages import LogRecordMessage, LogsRequest
from tallystream.schemas.otlp.records import HINT, MARK, OPAQUE, LogRecord, LogsBody, Value, event_name
from tallystream.schemas.otlp.signals import refuse_other_shapes, undecodable


class MapAttributes:
    """Attributes as protobuf's map."""

    __slots__ = ("_map",)

    def __init__(self, attributes: Any) -> None:
        self._map = attributes

    def get(self, name: str) -> Value:
        """Return the value, or None when it is absent or empty."""
        # the map's [] would add what it does not find
        value = self._map.get(name)
        return None if value is None else _value(value)

    def names(self) -> Iterable[str]:
        """Return the keys."""
        names: Iterable[str] = self._map
        return names


def _value(value: Any) -> Value:
    kind = value.WhichOneof("value")
    if kind == "string_value" or kind == "int_value" or kind == "bool_value" or kind == "double_value":
        scalar: Value = getattr(value, kind)
        return scalar
    return None if kind is None else OPAQUE


def read_logs(body: bytes) -> LogsBody:
    """Decode an ExportLogsServiceRequest.

    Raises:
        InvalidBodyError: now for a broken frame, while walking the candidates for a broken record.

    """
    try:
        request = LogsRequest.FromString(body)
    except DecodeError as exc:
        raise undecodable(exc) from exc
    scopes = [scope for resource in request.resources for scope in resource.scopes]
    if not _is_logs(next((scope.records[0] for scope in scopes if scope.records), b"")):
        refuse_other_shapes(body, "logs")
    records = sum(len(scope.records) for scope in scopes)
    marks = body.count(MARK)
    return LogsBody(records, _candidates(request, marks) if marks else iter(()))


def _is_logs(first: bytes) -> bool:
    """Whether a first record is plainly a log: no metric or span can show attributes or a time in these fields."""
    try:
        message = LogRecordMessage.FromString(first)
    except DecodeError:
        return False
    return bool(message.observed_time_unix_nano or message.attributes)


def _candidates(request: Any, marks: int) -> Iterator[LogRecord]:
    """Walk the records until every mark the body holds has been seen."""
    index = 0
    for resource in request.resources:
        attributes: dict[str, Value] | None = None
        for scope in resource.scopes:
            for place, raw in enumerate(scope.records, index):
                if MARK not in raw:
                    continue
                if HINT.search(raw):
                    if attributes is None:
                        attributes = {key: _value(value) for key, value in resource.resource.attributes.items()}
                    yield _record(raw, place, scope.scope.name, attributes)
                marks -= raw.count(MARK)
                if not marks:
                    return
            index += len(scope.records)


def _record(raw: bytes, index: int, scope: str, resource: dict[str, Value]) -> LogRecord:
    try:
        message = LogRecordMessage.FromString(raw)
    except DecodeError as exc:
        raise undecodable(exc, f" (record {index})") from exc
    attributes = MapAttributes(message.attributes)
    return LogRecord(
        index,
        message.time_unix_nano,
        message.observed_time_unix_nano,
        message.trace_id.hex(),
        event_name(attributes, message.event_name),
        scope,
        resource,
        attributes,
    )
