"""Logs in JSON: parsed by orjson, a record's attributes decoded only when a name may be that of a token count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tallystream.schemas.otlp.json_values import (
    any_value,
    attribute_names,
    attributes,
    hex_id,
    load,
    member,
    nanoseconds,
    objects,
    text,
)
from tallystream.schemas.otlp.records import MARK, NAMES_HINT, LogRecord, LogsBody, Value, event_name
from tallystream.schemas.otlp.signals import refuse_other_signals


class DictAttributes:
    """Attributes as a dict of undecoded values."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def get(self, name: str) -> Value:
        """Return the value, or None when it is absent or empty."""
        value = self._values.get(name)
        return None if value is None else any_value(value)

    def names(self) -> Iterable[str]:
        """Return the keys."""
        return self._values


def read_logs(body: bytes) -> LogsBody:
    """Decode an ExportLogsServiceRequest.

    Raises:
        InvalidBodyError: now for what is no such request, while walking the candidates for a broken record.

    """
    document = load(body)
    refuse_other_signals(document, "logs")
    scopes = [
        (resource, scope, objects(scope, "logRecords"))
        for resource in objects(document, "resourceLogs")
        for scope in objects(resource, "scopeLogs")
    ]
    records = sum(len(found) for _, _, found in scopes)
    # a name could be written with escapes, which only the decoded text shows
    marked = MARK in body or b"\\u" in body
    return LogsBody(records, _candidates(scopes) if marked else iter(()))


def _candidates(scopes: list[tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]]) -> Iterator[LogRecord]:
    index = 0
    owner: dict[str, Any] | None = None
    described: dict[str, Value] = {}
    for resource, scope, records in scopes:
        for place, record in enumerate(records, index):
            if not NAMES_HINT.search(attribute_names(record)):
                continue
            if owner is not resource:
                owner = resource
                described = {key: any_value(value) for key, value in attributes(member(resource, "resource")).items()}
            found = DictAttributes(attributes(record))
            yield LogRecord(
                place,
                nanoseconds(record, "timeUnixNano"),
                nanoseconds(record, "observedTimeUnixNano"),
                hex_id(record, "traceId"),
                event_name(found, text(record, "eventName")),
                text(member(scope, "scope"), "name"),
                described,
                found,
            )
        index += len(records)
