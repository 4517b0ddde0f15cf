"""Builds OTLP logs requests, the same one in both encodings: protobuf with the official classes, JSON as Codex writes
it.

`codex_response` and `codex_noise` return records in Codex's form; each test changes the fields that it is about.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from tallystream.schemas.otlp import Encoding

Attribute = str | int | float | bool | bytes | None | list[Any] | dict[str, Any]

AT_NS = 1_900_000_000_000_000_000
SECRET = "canary-of-prompt-content"


@dataclass(frozen=True)
class Record:
    """A log record. `attributes` is a list of pairs, because a key may be repeated."""

    attributes: Sequence[tuple[str, Attribute]]
    time_ns: int = 0
    observed_ns: int = 0
    trace_id: str = ""
    event_name: str = ""
    body: Attribute = None

    def having(self, **changes: Attribute) -> Record:
        """Return the record with attributes set; `__` stands for a dot, None takes one away."""
        named = {name.replace("__", "."): value for name, value in changes.items()}
        kept = [(name, value) for name, value in self.attributes if name not in named]
        return replace(self, attributes=[*kept, *((n, v) for n, v in named.items() if v is not None)])


@dataclass(frozen=True)
class Group:
    """Records of one resource and scope."""

    records: Sequence[Record]
    resource: dict[str, Attribute] = field(default_factory=lambda: {"service.name": "codex_exec", "env": "lab"})
    scope: str = "codex_otel.log_only"


def encode(groups: Sequence[Group], encoding: Encoding) -> bytes:
    """Return the request's body."""
    return protobuf(groups) if encoding is Encoding.PROTOBUF else as_json(groups)


def protobuf(groups: Sequence[Group]) -> bytes:
    """Return the request in protobuf, by the official classes."""
    request = ExportLogsServiceRequest()
    for group in groups:
        resource = request.resource_logs.add()
        resource.resource.attributes.extend(_pairs(list(group.resource.items())))
        scope = resource.scope_logs.add()
        scope.scope.name = group.scope
        for record in group.records:
            scope.log_records.add(
                time_unix_nano=record.time_ns,
                observed_time_unix_nano=record.observed_ns,
                severity_number=9,
                severity_text="INFO",
                attributes=_pairs(record.attributes),
                trace_id=bytes.fromhex(record.trace_id),
                event_name=record.event_name,
                body=None if record.body is None else _any(record.body),
            )
    return request.SerializeToString()


def _pairs(attributes: Sequence[tuple[str, Attribute]]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any(value)) for key, value in attributes]


def _any(value: Attribute) -> AnyValue:
    found = AnyValue()
    if isinstance(value, bool):
        found.bool_value = value
    elif isinstance(value, int):
        found.int_value = value
    elif isinstance(value, float):
        found.double_value = value
    elif isinstance(value, bytes):
        found.bytes_value = value
    elif isinstance(value, str):
        found.string_value = value
    elif isinstance(value, list):
        found.array_value.values.extend(map(_any, value))
        found.array_value.SetInParent()
    elif isinstance(value, dict):
        found.kvlist_value.values.extend(_pairs(list(value.items())))
        found.kvlist_value.SetInParent()
    return found


def document(groups: Sequence[Group]) -> dict[str, Any]:
    """Return the request as OTLP/JSON's object."""
    return {
        "resourceLogs": [
            {
                "resource": {
                    "attributes": _json_pairs(list(group.resource.items())),
                    "droppedAttributesCount": 0,
                    "entityRefs": [],
                },
                "scopeLogs": [
                    {
                        "scope": {"name": group.scope, "version": "", "attributes": [], "droppedAttributesCount": 0},
                        "logRecords": [
                            {
                                "timeUnixNano": str(record.time_ns),
                                "observedTimeUnixNano": str(record.observed_ns),
                                "severityNumber": 9,
                                "severityText": "INFO",
                                "body": _json_any(record.body),
                                "attributes": _json_pairs(record.attributes),
                                "droppedAttributesCount": 0,
                                "flags": 0,
                                "traceId": record.trace_id,
                                "spanId": "",
                                "eventName": record.event_name,
                            }
                            for record in group.records
                        ],
                        "schemaUrl": "",
                    }
                ],
                "schemaUrl": "",
            }
            for group in groups
        ]
    }


def as_json(groups: Sequence[Group]) -> bytes:
    """Return the request in JSON, indented as Codex does."""
    return json.dumps(document(groups), indent=2, ensure_ascii=False).encode()


def _json_pairs(attributes: Sequence[tuple[str, Attribute]]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _json_any(value)} for key, value in attributes]


def _json_any(value: Attribute) -> dict[str, Any] | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode()}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_json_any(entry) for entry in value]}}
    return {"kvlistValue": {"values": _json_pairs(list(value.items()))}}


def iso(at_ns: int) -> str:
    """Return a time as Codex writes it: ISO 8601 with milliseconds."""
    at = datetime.fromtimestamp(at_ns // 1_000_000_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ns % 1_000_000_000 // 1_000_000:03d}Z"


def codex_record(name: str, session: str, model: str, at_ns: int, **attributes: Attribute) -> Record:
    """Return a Codex record: what every event carries, and the attributes given (`__` stands for a dot)."""
    return Record(
        [
            ("event.name", name),
            *((key.replace("__", "."), value) for key, value in attributes.items()),
            ("event.timestamp", iso(at_ns)),
            ("conversation.id", session),
            ("app.version", "0.169.0"),
            ("originator", "codex_exec"),
            ("terminal.type", "xterm-256color"),
            ("model", model),
            ("slug", model),
        ],
        observed_ns=at_ns,
        trace_id="5b8efff798038103d269b633813fc60c",
        event_name="event otel/src/events/session_telemetry.rs:1034",
    )


def codex_response(
    session: str = "s-1",
    model: str = "gpt-5.1-codex",
    at_ns: int = AT_NS,
    *,
    whole: int = 1000,
    cached: int = 400,
    written: int = 100,
    output: int = 90,
    reasoning: int = 30,
) -> Record:
    """Return the record that costs: `whole` input tokens, of which some cached and some written to the cache."""
    return codex_record(
        "codex.sse_event",
        session,
        model,
        at_ns,
        event__kind="response.completed",
        input_token_count=str(whole),
        output_token_count=str(output),
        cached_token_count=cached,
        cache_write_token_count=written,
        reasoning_token_count=reasoning,
        tool_token_count=str(whole + output),
        ttft_ms=12,
    )


def codex_noise(session: str = "s-1", model: str = "gpt-5.1-codex", at_ns: int = AT_NS) -> list[Record]:
    """Return the events around a response that are not usage, including prompt and tool content."""

    def event(name: str, **attributes: Attribute) -> Record:
        return codex_record(name, session, model, at_ns, **attributes)

    return [
        event("codex.conversation_starts", provider_name="openai", auto_compact_token_limit=6000),
        event("codex.user_prompt", prompt_length="30", prompt=SECRET),
        event(
            "codex.api_request",
            duration_ms="72",
            http__response__status_code=200,
            auth__env_refresh_token_url_override_present=False,
        ),
        event("codex.sse_event", event__kind="response.created", duration_ms="0"),
        event("codex.sse_event", event__kind="response.output_text.delta", duration_ms="10"),
        event("codex.sse_event", event__kind="response.completed", duration_ms="10"),
        event("codex.tool_decision", tool_name="exec_command", call_id="call_1", decision="approved"),
        event(
            "codex.tool_result",
            tool_name="exec_command",
            arguments=f'{{"cmd":"echo {SECRET}"}}',
            output=f"{SECRET}: input_token_count 12 tokens",
            tool_result_seq=1,
        ),
        event("codex.turn_cost", turn__id="t-1", usage__estimated_usd="0.0123450000"),
        Record([], observed_ns=at_ns, event_name="event otel/src/metrics/client.rs:324"),
    ]
