"""Protobuf messages that are wire compatible with OTLP but leave the parts we do not need undecoded.

A log record, a metric point and a span are `bytes` here, so decoding a request touches only its frame. A log record's
attributes are a `map<string, AnyValue>`, which has the same bytes as `repeated KeyValue` but allows looking up a key
without walking a list. Arrays and key-value lists stay bytes: they never contain counts, and deep nesting cannot do
harm. Field numbers: opentelemetry-proto 1.x.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_PACKAGE = "tallystream.otlp"
_TYPES = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "fixed32": FieldDescriptorProto.TYPE_FIXED32,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "fixed64": FieldDescriptorProto.TYPE_FIXED64,
    "sfixed64": FieldDescriptorProto.TYPE_SFIXED64,
}

_MESSAGES: dict[str, dict[int, str]] = {
    "AnyValue": {
        1: "string string_value",
        2: "bool bool_value",
        3: "int64 int_value",
        4: "double double_value",
        5: "bytes array_value",
        6: "bytes kvlist_value",
        7: "bytes bytes_value",
    },
    "Resource": {1: "map attributes"},
    "Scope": {1: "string name"},
    "LogRecord": {
        1: "fixed64 time_unix_nano",
        5: "AnyValue body",
        6: "map attributes",
        9: "bytes trace_id",
        11: "fixed64 observed_time_unix_nano",
        12: "string event_name",
    },
    "LogRecordFields": {
        1: "fixed64 time_unix_nano",
        2: "int32 severity_number",
        3: "bytes severity_text",
        5: "bytes body",
        6: "bytes attributes",
        7: "uint32 dropped_attributes_count",
        8: "fixed32 flags",
        9: "bytes trace_id",
        10: "bytes span_id",
        11: "fixed64 observed_time_unix_nano",
        12: "bytes event_name",
    },
    "ScopeLogs": {1: "Scope scope", 2: "repeated bytes records"},
    "ResourceLogs": {1: "repeated bytes resource", 2: "repeated ScopeLogs scopes"},
    "LogsRequest": {1: "repeated ResourceLogs resources"},
    "SpanStatus": {3: "int32 code"},
    "SpanIds": {1: "bytes trace_id", 2: "bytes span_id", 4: "bytes parent_span_id"},
    "Span": {
        1: "bytes trace_id",
        2: "bytes span_id",
        4: "bytes parent_span_id",
        7: "fixed64 start_time_unix_nano",
        8: "fixed64 end_time_unix_nano",
        9: "map attributes",
        15: "SpanStatus status",
    },
    "ScopeSpans": {1: "Scope scope", 2: "repeated bytes records"},
    "ResourceSpans": {1: "Resource resource", 2: "repeated ScopeSpans scopes"},
    "SpansRequest": {1: "repeated ResourceSpans resources"},
    "Points": {1: "repeated bytes points", 2: "int32 temporality"},
    "Metric": {
        1: "bytes name",
        5: "Points gauge",
        7: "Points sum",
        9: "Points histogram",
        10: "Points exponential",
        11: "Points summary",
    },
    "ScopeMetrics": {2: "repeated Metric metrics"},
    "ResourceMetrics": {2: "repeated ScopeMetrics scopes"},
    "MetricsRequest": {1: "repeated ResourceMetrics resources"},
    "NumberPoint": {
        2: "fixed64 start_time_unix_nano",
        3: "fixed64 time_unix_nano",
        4: "double as_double",
        6: "sfixed64 as_int",
        7: "map attributes",
    },
    "HistogramPoint": {
        2: "fixed64 start_time_unix_nano",
        3: "fixed64 time_unix_nano",
        5: "double sum",
        9: "map attributes",
    },
    "ResponsePartial": {1: "int64 rejected", 2: "string error_message"},
    "Response": {1: "ResponsePartial partial_success"},
    "Detail": {1: "string type_url", 2: "bytes value"},
    "Status": {1: "int32 code", 2: "string message", 3: "repeated Detail details"},
    "Duration": {1: "int64 seconds"},
    "RetryInfo": {1: "Duration retry_delay"},
}
_ONE_OF = {"AnyValue": "value"}


def _field(message: DescriptorProto, number: int, declaration: str) -> None:
    *label, kind, name = declaration.split()
    field = message.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
    if label == ["repeated"]:
        field.label = FieldDescriptorProto.LABEL_REPEATED
    if kind in _TYPES:
        field.type = _TYPES[kind]
    elif kind == "map":
        entry = message.nested_type.add(name="AttributesEntry")
        entry.options.map_entry = True
        _field(entry, 1, "string key")
        _field(entry, 2, "AnyValue value")
        field.label = FieldDescriptorProto.LABEL_REPEATED
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{message.name}.{entry.name}"
    else:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"


def _build() -> dict[str, Any]:
    file = FileDescriptorProto(name="tallystream/otlp.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if name in _ONE_OF:
            message.oneof_decl.add(name=_ONE_OF[name])
        for number, declaration in fields.items():
            _field(message, number, declaration)
            if name in _ONE_OF:
                message.field[-1].oneof_index = 0
    # a separate pool, because the default one is used by generated code
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


_classes = _build()
LogRecordMessage: Any = _classes["LogRecord"]
LogRecordFields: Any = _classes["LogRecordFields"]
"""All fields of a log record, none of them decoded: what it does not know is not a log record's."""
LogsRequest: Any = _classes["LogsRequest"]
SpansRequest: Any = _classes["SpansRequest"]
SpanIdsMessage: Any = _classes["SpanIds"]
SpanMessage: Any = _classes["Span"]
MetricsRequest: Any = _classes["MetricsRequest"]
MetricMessage: Any = _classes["Metric"]
ResourceMessage: Any = _classes["Resource"]
NumberPointMessage: Any = _classes["NumberPoint"]
HistogramPointMessage: Any = _classes["HistogramPoint"]
ExportResponse: Any = _classes["Response"]
Status: Any = _classes["Status"]
RetryInfo: Any = _classes["RetryInfo"]
