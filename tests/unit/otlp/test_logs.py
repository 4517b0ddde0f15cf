"""Reading logs requests: the same records, whatever the encoding."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.otlp_bodies import AT_NS, Group, Record, as_json, codex_noise, codex_response, document, encode

from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp import Encoding, LogRecord, read_logs

BOTH = pytest.mark.parametrize("encoding", list(Encoding))


def only(body: bytes, encoding: Encoding) -> LogRecord:
    (record,) = read_logs(body, encoding).candidates
    return record


@BOTH
def test_an_empty_request_holds_no_records(encoding: Encoding) -> None:
    for body in {Encoding.PROTOBUF: (b"", encode([], encoding)), Encoding.JSON: (b"{}", b'{"resourceLogs":[]}')}[
        encoding
    ]:
        logs = read_logs(body, encoding)
        assert (logs.records, list(logs.candidates)) == (0, [])


@BOTH
def test_every_record_is_counted_and_only_those_that_may_cost_are_decoded(encoding: Encoding) -> None:
    noise = codex_noise()
    groups = [Group(noise), Group([*noise, codex_response(), *noise]), Group([codex_response("s-2")])]
    logs = read_logs(encode(groups, encoding), encoding)
    found = [(record.index, record.attributes.get("conversation.id")) for record in logs.candidates]
    assert logs.records == 3 * len(noise) + 2
    assert (2 * len(noise), "s-1") in found
    assert (3 * len(noise) + 1, "s-2") in found
    # the events around a response hold no name like a token count; one mentions it in its output
    assert len(found) <= 2 + 3 * 3


@BOTH
def test_a_record_comes_whole(encoding: Encoding) -> None:
    wanted = Record(
        [("event.name", "some.event"), ("tokens", 5)], time_ns=AT_NS, observed_ns=AT_NS + 7, trace_id="0A" * 16
    )
    record = only(encode([Group([wanted], {"team": "payments"}, "a.scope")], encoding), encoding)
    assert (record.index, record.time_ns, record.observed_ns) == (0, AT_NS, AT_NS + 7)
    assert (record.trace_id, record.scope, record.resource) == ("0a" * 16, "a.scope", {"team": "payments"})
    assert record.event_name == "some.event"


@BOTH
def test_the_name_is_the_attribute_else_the_field(encoding: Encoding) -> None:
    with_field = Record([("tokens", 5)], observed_ns=AT_NS, event_name="from.field")
    assert only(encode([Group([with_field])], encoding), encoding).event_name == "from.field"


@BOTH
def test_every_kind_of_value(encoding: Encoding) -> None:
    values: dict[str, Any] = {
        "tokens": 2**63 - 1,
        "low": -(2**63),
        "zero": 0,
        "text": "é|%\x00",
        "blank": "",
        "yes": True,
        "no": False,
        "half": 0.5,
        "raw": b"\xff",
        "list": ["a", 1],
        "pairs": {"a": 1},
        "nothing": None,
    }
    attributes = only(encode([Group([Record(list(values.items()), observed_ns=1)])], encoding), encoding).attributes
    assert set(attributes.names()) == set(values)
    opaque = {"raw": b"", "list": b"", "pairs": b""}
    assert {name: attributes.get(name) for name in values} == values | opaque
    assert attributes.get("absent") is None
    assert set(attributes.names()) == set(values), "asking for a name must not add it"


@BOTH
def test_of_two_attributes_with_one_key_the_last_counts(encoding: Encoding) -> None:
    twice = Record([("tokens", 1), ("x", "a"), ("tokens", 2), ("x", "b")], observed_ns=1)
    attributes = only(encode([Group([twice])], encoding), encoding).attributes
    assert (attributes.get("tokens"), attributes.get("x")) == (2, "b")


def test_json_numbers_ids_and_nulls() -> None:
    body = document([Group([codex_response()])])
    record = body["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    record |= {"timeUnixNano": AT_NS, "observedTimeUnixNano": None, "traceId": "", "unheard": {"of": []}, "body": None}
    record["attributes"] += [{"key": "a", "value": {"intValue": 7}}, {"key": "b", "value": {"intValue": "-7"}}]
    record["attributes"] += [{"key": "c", "value": {"doubleValue": "NaN"}}, {"key": "d", "value": {}}, {"value": None}]
    record["severityNumber"] = 9
    found = only(json.dumps(body).encode(), Encoding.JSON)
    assert (found.time_ns, found.observed_ns, found.trace_id) == (AT_NS, 0, "")
    assert [found.attributes.get(name) for name in "abd"] == [7, -7, None]
    assert found.attributes.get("c") != found.attributes.get("c")


def test_a_json_name_written_with_escapes_is_seen() -> None:
    body = as_json([Group([codex_response()])]).replace(b"oken", b"o\\u006ben")
    assert b"oken" not in body
    assert only(body, Encoding.JSON).attributes.get("input_token_count") == "1000"


RECORD = ("resourceLogs", 0, "scopeLogs", 0, "logRecords", 0)


def changed(path: tuple[str | int, ...], value: Any) -> bytes:
    whole = document([Group([codex_response()])])
    target: Any = whole
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    return json.dumps(whole).encode()


def decode_all(body: bytes) -> None:
    for record in read_logs(body, Encoding.JSON).candidates:
        for name in record.attributes.names():
            record.attributes.get(name)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"\x0a\x02", "not JSON"),
        (b"[]", "an array, not an object"),
        (b"null", "null, not an object"),
        (b"[" * 3000 + b"]" * 3000, "not JSON"),
        (b'{"resourceLogs": NaN}', "not JSON"),
        (b'{"resourceLogs": 5}', "resourceLogs is a number, not an array"),
        (b'{"resourceLogs": {}}', "resourceLogs is an object, not an array"),
        (b'{"resourceLogs": [5]}', "resourceLogs holds a number"),
        (b'{"resource_logs": []}', "'resource_logs'"),
        (b'{"resourceLogs": [{"scope_logs": []}]}', "'scope_logs'"),
        (b'{"resourceLogs": [{"scopeLogs": [{"log_records": []}]}]}', "'log_records'"),
        (b'{"resourceSpans": []}', "holds traces, but came to the endpoint for logs"),
        (changed(RECORD, "text"), "logRecords holds a string"),
        (changed((*RECORD, "attributes"), {"tokens": 5}), "attributes is an object, not an array"),
        (changed((*RECORD, "attributes"), "tokens"), "attributes"),
        (changed((*RECORD, "attributes"), ["tokens"]), "attributes holds a string"),
        (changed((*RECORD, "attributes", 0, "key"), 5), "key is a number, not a string"),
        (changed((*RECORD, "attributes", 0, "key"), []), "key is an array"),
        (changed((*RECORD, "attributes", 0, "value"), "s"), "not an object"),
        (changed((*RECORD, "attributes", 0, "value"), {"stringValue": 5}), "stringValue is a number"),
        (changed((*RECORD, "attributes", 0, "value"), {"intValue": "5.5"}), "intValue is not a whole number"),
        (changed((*RECORD, "attributes", 0, "value"), {"intValue": 5.5}), "intValue is not a whole number"),
        (changed((*RECORD, "attributes", 0, "value"), {"intValue": True}), "intValue is not a whole number"),
        (changed((*RECORD, "attributes", 0, "value"), {"intValue": str(2**63)}), "64 bits"),
        (changed((*RECORD, "attributes", 0, "value"), {"intValue": 2**80}), "not a whole number"),
        (changed((*RECORD, "attributes", 0, "value"), {"boolValue": 1}), "boolValue is a number"),
        (changed((*RECORD, "attributes", 0, "value"), {"doubleValue": "much"}), "doubleValue"),
        (changed((*RECORD, "observedTimeUnixNano"), -1), "64 bits"),
        (changed((*RECORD, "observedTimeUnixNano"), "soon"), "observedTimeUnixNano is not a whole number"),
        (changed((*RECORD, "traceId"), "W4r/95gDgQ"), "not hex"),
        (changed((*RECORD, "traceId"), "abc"), "not hex"),
        (changed((*RECORD, "eventName"), 5), "eventName is a number"),
        (changed(("resourceLogs", 0, "resource"), []), "resource is an array"),
        (changed(("resourceLogs", 0, "resource", "attributes"), 5), "attributes is a number"),
        (changed(("resourceLogs", 0, "scopeLogs", 0, "scope"), 5), "scope is a number"),
    ],
)
def test_what_is_no_otlp_in_json_is_refused_with_a_reason(body: bytes, says: str) -> None:
    with pytest.raises(InvalidBodyError) as refused:
        decode_all(body)
    assert says in refused.value.message
    assert refused.value.hint
