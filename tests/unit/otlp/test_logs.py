"""Reading logs requests: both encodings give the same records."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.support.otlp_bodies import AT_NS, Group, Record, as_json, codex_noise, codex_response, document, encode

from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp import Broken, BrokenRecord, Encoding, LogRecord, read_logs

BOTH = pytest.mark.parametrize("encoding", list(Encoding))


def only(body: bytes, encoding: Encoding) -> LogRecord:
    (record,) = read_logs(body, encoding).candidates
    assert isinstance(record, LogRecord)
    return record


@BOTH
def test_empty_request_has_no_records(encoding: Encoding) -> None:
    for body in {Encoding.PROTOBUF: (b"", encode([], encoding)), Encoding.JSON: (b"{}", b'{"resourceLogs":[]}')}[
        encoding
    ]:
        logs = read_logs(body, encoding)
        assert (logs.records, list(logs.candidates)) == (0, [])


@BOTH
def test_only_records_with_possible_usage_are_decoded(encoding: Encoding) -> None:
    noise = codex_noise()
    groups = [Group(noise), Group([*noise, codex_response(), *noise]), Group([codex_response("s-2")])]
    logs = read_logs(encode(groups, encoding), encoding)
    records = [record for record in logs.candidates if isinstance(record, LogRecord)]
    found = [(record.index, record.attributes.get("conversation.id")) for record in records]
    assert logs.records == 3 * len(noise) + 2
    assert (2 * len(noise), "s-1") in found
    assert (3 * len(noise) + 1, "s-2") in found
    # the other events have no names of token counts, except one that mentions such a name in its output
    assert len(found) <= 2 + 3 * 3


@BOTH
def test_record_is_decoded_completely(encoding: Encoding) -> None:
    wanted = Record(
        [("event.name", "some.event"), ("tokens", 5)], time_ns=AT_NS, observed_ns=AT_NS + 7, trace_id="0A" * 16
    )
    record = only(encode([Group([wanted], {"team": "payments"}, "a.scope")], encoding), encoding)
    assert (record.index, record.time_ns, record.observed_ns) == (0, AT_NS, AT_NS + 7)
    assert (record.trace_id, record.scope, record.resource) == ("0a" * 16, "a.scope", {"team": "payments"})
    assert record.event_name == "some.event"


@BOTH
def test_event_name_is_the_attribute_or_else_the_field(encoding: Encoding) -> None:
    with_field = Record([("tokens", 5)], observed_ns=AT_NS, event_name="from.field")
    assert only(encode([Group([with_field])], encoding), encoding).event_name == "from.field"


@BOTH
def test_every_kind_of_value_is_decoded(encoding: Encoding) -> None:
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
def test_last_of_two_attributes_with_the_same_key_is_used(encoding: Encoding) -> None:
    twice = Record([("tokens", 1), ("x", "a"), ("tokens", 2), ("x", "b")], observed_ns=1)
    attributes = only(encode([Group([twice])], encoding), encoding).attributes
    assert (attributes.get("tokens"), attributes.get("x")) == (2, "b")


def test_json_numbers_ids_and_nulls_are_decoded() -> None:
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


def test_escaped_json_names_are_recognised() -> None:
    body = as_json([Group([codex_response()])]).replace(b"oken", b"o\\u006ben")
    assert b"oken" not in body
    assert only(body, Encoding.JSON).attributes.get("input_token_count") == "1000"


RECORD = ("resourceLogs", 0, "scopeLogs", 0, "logRecords", 0)


def changed(path: tuple[str | int, ...], value: object) -> bytes:
    whole = document([Group([codex_response()])])
    target: Any = whole
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"\x0a\x02", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[]", "an array, not an object"),
        (b"null", "null, not an object"),
        (b"[" * 3000 + b"]" * 3000, "an array, not an object"),
        (b'{"resourceLogs": NaN}', "holds not JSON"),
        (b'{"resourceLogs": 5}', "resourceLogs holds a number"),
        (b'{"resourceLogs": [5]}', "resourceLogs holds a number"),
        (b'{"resourceLogs": [{"scopeLogs": 5}]}', "scopeLogs holds a number"),
        (b'{"resourceSpans": []}', "holds traces, but was sent to the endpoint for logs"),
        (b'{"resource_spans": []}', "holds traces, but was sent to the endpoint for logs"),
        (b'{"ResourceLogs": []}', "it has no resourceLogs, but 'ResourceLogs'"),
        (changed(RECORD, "text"), "logRecords holds a string"),
    ],
)
def test_unreadable_json_is_refused_with_the_reason(body: bytes, says: str) -> None:
    with pytest.raises(InvalidBodyError) as refused:
        list(read_logs(body, Encoding.JSON).candidates)
    assert says in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("attributes",), "tokens", "attributes holds a string"),
        (("attributes",), ["tokens"], "attributes holds a string"),
        (("attributes", 0, "key"), 5, "key is a number, not a string"),
        (("attributes", 0, "key"), [], "key is an array"),
        (("attributes", 0), {"Key": "tokens", "Value": {"intValue": 5}}, "an attribute has no key"),
    ],
)
def test_record_with_invalid_attributes_is_broken(place: tuple[str | int, ...], value: object, says: str) -> None:
    (found,) = read_logs(changed((*RECORD, *place), value), Encoding.JSON).candidates
    assert isinstance(found, BrokenRecord)
    assert says in found.why


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([5], "not an object"),
        ({"uintValue": 5}, "no field of an AnyValue"),
        ({"Value": {"Value": {"IntValue": 5}}}, "no field of an AnyValue"),
        ({"intValue": {"low": 2**32, "high": 0}}, "not a whole number"),
        ({"intValue": {"low": 1}}, "not a whole number"),
        ({"stringValue": 5}, "stringValue is a number"),
        ({"intValue": "5.5"}, "intValue is not a whole number"),
        ({"intValue": 5.5}, "intValue is not a whole number"),
        ({"intValue": True}, "intValue is not a whole number"),
        ({"intValue": "0x10"}, "intValue is not a whole number"),
        ({"intValue": str(2**63)}, "64 bits"),
        ({"intValue": 2**80}, "64 bits"),
        ({"intValue": "1e30"}, "64 bits"),
        ({"boolValue": 1}, "boolValue is a number"),
        ({"doubleValue": "much"}, "doubleValue"),
    ],
)
def test_value_of_another_type_than_declared_is_broken(value: object, says: str) -> None:
    record = only(changed((*RECORD, "attributes", 0, "value"), value), Encoding.JSON)
    name = next(iter(record.attributes.names()))
    found = record.attributes.get(name)
    assert isinstance(found, Broken)
    assert says in found.why


@pytest.mark.parametrize("whole", [100, 1e2, "100", "1e2", "1E+2", "100.0", "1000e-1", "+100"])
@pytest.mark.parametrize("name", ["intValue", "int_value"])
def test_every_legal_form_of_an_integer_is_read(whole: float | str, name: str) -> None:
    record = only(changed((*RECORD, "attributes", 0, "value"), {name: whole}), Encoding.JSON)
    assert record.attributes.get(next(iter(record.attributes.names()))) == 100


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("5B8EFFF798038103D269B633813FC60C", "5b8efff798038103d269b633813fc60c"),
        ("W47/95gDgQPSabYzgT/GDA==", "5b8efff798038103d269b633813fc60c"),
        ("W47_95gDgQPSabYzgT_GDA", "5b8efff798038103d269b633813fc60c"),
        ("eee19b7ec3c1b174", "eee19b7ec3c1b174"),
        ("7uGbfsPBsXQ=", "eee19b7ec3c1b174"),
        ("", ""),
        (None, ""),
        (5, ""),
        ("abc", "abc"),
        ("not an id", "not an id"),
    ],
)
def test_ids_are_hex_or_base64(written: object, read: str) -> None:
    assert only(changed((*RECORD, "traceId"), written), Encoding.JSON).trace_id == read


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*RECORD, "observedTimeUnixNano"), "soon"),
        ((*RECORD, "observedTimeUnixNano"), -1),
        ((*RECORD, "eventName"), 5),
        (("resourceLogs", 0, "resource"), []),
        (("resourceLogs", 0, "resource", "attributes"), 5),
        (("resourceLogs", 0, "scopeLogs", 0, "scope"), 5),
    ],
)
def test_broken_fields_besides_attributes_are_ignored(path: tuple[str | int, ...], value: object) -> None:
    assert only(changed(path, value), Encoding.JSON).attributes.get("input_token_count") == "1000"


def test_snake_case_names_are_accepted() -> None:
    body = as_json([Group([codex_response()], {"team": "a"})])
    spelled = re.sub(rb'"([a-z]+)((?:[A-Z][a-z]+)+)":', _snake, body)
    for name in (b"resource_logs", b"string_value", b"observed_time_unix_nano"):
        assert name in spelled
    assert normalise_logs(spelled, Encoding.JSON) == normalise_logs(body, Encoding.JSON)


def _snake(found: re.Match[bytes]) -> bytes:
    return re.sub(rb"[A-Z]", lambda upper: b"_" + upper[0].lower(), found[0])
