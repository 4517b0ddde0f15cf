"""Usage that exporters and pipelines spell in another way is counted, and what cannot be read is never read as 0.

Each case is of a kind that was reported publicly, of an exporter, a serialiser or a pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.otlp_bodies import AT_NS, Attribute, Group, Record, codex_response, document, encode, iso
from tests.unit.clients.test_claude_code import SCOPE, response
from tests.unit.clients.test_gemini_cli import response as gemini_response

from tallystream.schemas.clients import LogsResult, normalise_logs
from tallystream.schemas.clients.renormalise import renormalise
from tallystream.schemas.errors import InvalidBodyError, Reason
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.usage import DISJOINT_COUNTS

TOKENS = 121 + 12 + 40 + 1200
"""Of `response`."""
Json = dict[str, Any]


def request(*records: Record, service: str = "claude-code", scope: str = SCOPE, **resource: Attribute) -> Json:
    named = {name.replace("__", "."): value for name, value in resource.items()}
    return document([Group(records, {"service.name": service, **named}, scope)])


def record_of(found: Json) -> Json:
    record: Json = found["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    return record


def read(body: Json | bytes) -> LogsResult:
    return normalise_logs(body if isinstance(body, bytes) else json.dumps(body).encode(), Encoding.JSON)


def counted(found: LogsResult) -> list[int]:
    """Return the tokens of each event."""
    return [sum(event[name] for name in DISJOINT_COUNTS) for pack in found.packs for event in pack.events]


def assert_counted(body: Json | bytes, *tokens: int) -> LogsResult:
    found = read(body)
    assert counted(found) == list(tokens or (TOKENS,))
    assert not found.rejected
    return found


SECOND = 10**9
MILLISECOND = 10**6
LOW, HIGH = (AT_NS & 0xFFFFFFFF), AT_NS >> 32


@pytest.mark.parametrize(
    ("time", "at_ns"),
    [
        ({"low": LOW - 2**32 if LOW >= 2**31 else LOW, "high": HIGH}, AT_NS),
        ({"low": LOW, "high": HIGH, "unsigned": True}, AT_NS),
        ([AT_NS // SECOND, 250], AT_NS + 250),
        (AT_NS / SECOND + 0.25, AT_NS + SECOND // 4),
        (f"{AT_NS // SECOND}.25", AT_NS + SECOND // 4),
        (AT_NS // MILLISECOND + 0.5, AT_NS + MILLISECOND // 2),
        (1.9e18, AT_NS),
        (AT_NS // 1000, AT_NS),
        ("2030-03-17T17:46:40.000000001Z", AT_NS + 1),
        ("2030-03-17 17:46:40", AT_NS),
        ("2030-03-17T19:46:40,25+02:00", AT_NS + SECOND // 4),
        ("2030-03-17 17:46:40.25 +0000 UTC", AT_NS + SECOND // 4),
        ("2030-03-17 17:46:40 UTC", AT_NS),
        ("Sun, 17 Mar 2030 17:46:40 GMT", AT_NS),
        ("Sun Mar 17 2030 19:46:40 GMT+0200 (Eastern European Standard Time)", AT_NS),
        ("Sun Mar 17 2030 14:46:40 GMT-0300", AT_NS),
        ("2030-03-17 14:46:40.25 -0300 -03", AT_NS + SECOND // 4),
        ("2030-03-17T18:46:40.25+01:00[Europe/Berlin]", AT_NS + SECOND // 4),
        ("2030-03-17T17:46:40Z[UTC]", AT_NS),
        (f" {AT_NS} ", AT_NS),
    ],
)
def test_times_are_read_in_other_forms(time: object, at_ns: int) -> None:
    body = request(response(event__timestamp=None))
    record_of(body).update(timeUnixNano=time, observedTimeUnixNano="0")
    (pack,) = assert_counted(body).packs
    assert pack.events[0]["occurred_at"] == at_ns
    if isinstance(time, str):
        (pack,) = assert_counted(request(Record(response(event__timestamp=time).attributes))).packs
        assert pack.events[0]["occurred_at"] == at_ns


@pytest.mark.parametrize(
    "time",
    [
        -1,
        True,
        "",
        {},
        [],
        [1, -1],
        [AT_NS, 0],
        "soon",
        "0001-01-01T00:00:00Z",
        2**64 - 1,
        1e300,
        "9" * 100,
        4_004_157_600,
    ],
)
def test_impossible_times_are_skipped_or_named(time: object) -> None:
    body = request(response(event__timestamp=iso(AT_NS)))
    record_of(body).update(timeUnixNano=time, observedTimeUnixNano=time)
    (pack,) = assert_counted(body).packs
    assert pack.events[0]["occurred_at"] == AT_NS
    alone = request(response(event__timestamp=None))
    record_of(alone).update(timeUnixNano=time, observedTimeUnixNano=time)
    assert [lost.reason for lost in read(alone).rejected] == [Reason.NO_TIME]


def with_value(value: object) -> Json:
    """Return a request whose first record has `input_tokens` in this form; the second is sound."""
    body = request(response(), response(request_id="req_2"))
    (entry,) = [one for one in record_of(body)["attributes"] if one["key"] == "input_tokens"]
    entry["value"] = value
    return body


@pytest.mark.parametrize(
    "value",
    [
        {"intValue": {"low": 121, "high": 0, "unsigned": False}},
        {"Value": {"IntValue": 121}},
        {"value": {"intValue": "121"}},
        {"IntValue": 121},
        {"int_value": "121"},
        {"stringValue": None, "intValue": 121},
        {"stringValue": "121.0"},
        {"stringValue": " +121 "},
        {"stringValue": "1.21e2"},
        {"doubleValue": "121"},
        121,
        121.0,
        "121",
    ],
)
def test_counts_are_read_in_other_forms(value: object) -> None:
    assert_counted(with_value(value), TOKENS, TOKENS)


@pytest.mark.parametrize(
    "value",
    [
        {"uintValue": "121"},
        {"Value": {"Uint": 121}},
        {"arrayValue": {"values": [{"intValue": "121"}]}},
        {"kvlistValue": {"values": []}},
        {"bytesValue": "eQ=="},
        {"boolValue": True},
        {"stringValue": ""},
        {"stringValue": "1,21"},
        {"intValue": {"low": 121, "high": -1}},
        {"intValue": {"low": 121, "top": 0}},
        [121],
        True,
    ],
)
def test_count_that_cannot_be_read_is_a_dead_letter_and_not_zero(value: object) -> None:
    found = read(with_value(value))
    assert counted(found) == [TOKENS]
    assert [(lost.reason, lost.session_id) for lost in found.rejected] == [(Reason.INVALID_COUNTS, "s-1")]


def test_values_beside_their_keys_are_read() -> None:
    body = request(response())
    for entry in record_of(body)["attributes"]:
        entry.update(entry.pop("value"))
    assert_counted(body)


def changed(change: Callable[[Json], object]) -> Json:
    body = request(response())
    change(body)
    return body


def resource_logs(body: Json) -> Json:
    found: Json = body["resourceLogs"][0]
    return found


def scope_logs(body: Json) -> Json:
    found: Json = resource_logs(body)["scopeLogs"][0]
    return found


def before_1_0(body: Json) -> None:
    (scope,) = resource_logs(body)["instrumentationLibraryLogs"] = resource_logs(body).pop("scopeLogs")
    scope["instrumentationLibrary"] = scope.pop("scope")
    resource_logs(body)["resource"] = {}


def long_before_1_0(body: Json) -> None:
    before_1_0(body)
    (scope,) = resource_logs(body)["instrumentationLibraryLogs"]
    scope["logs"] = scope.pop("logRecords")


@pytest.mark.parametrize(
    "change",
    [
        lambda body: record_of(body)["attributes"].insert(0, None),
        lambda body: record_of(body)["attributes"].insert(0, {}),
        lambda body: record_of(body).update(
            attributes={entry["key"]: entry["value"] for entry in record_of(body)["attributes"]}
        ),
        lambda body: record_of(body).update(
            attributes={entry["key"]: next(iter(entry["value"].values())) for entry in record_of(body)["attributes"]}
        ),
        lambda body: body.update(resourceLogs=resource_logs(body)),
        lambda body: scope_logs(body)["logRecords"].append(
            {"attributes": {"key": "total_token_count", "value": {"intValue": 0}}}
        ),
        lambda body: resource_logs(body).update(scopeLogs=scope_logs(body)),
        lambda body: scope_logs(body).update(logRecords=record_of(body)),
        lambda body: body["resourceLogs"].extend([{"scopeLogs": None}, {"scopeLogs": [{"logRecords": None}]}]),
        before_1_0,
        long_before_1_0,
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_lists_are_read_in_other_forms(change: Callable[[Json], object], split: bool) -> None:
    body = json.dumps(changed(change)).encode()
    # a bare NaN makes the body one that is split instead of parsed whole
    assert_counted(body.replace(b'"doubleValue": 0.00168', b'"doubleValue": NaN, "_": 0.00168') if split else body)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda body: resource_logs(body).update(ScopeLogs=resource_logs(body).pop("scopeLogs")), "no scopeLogs"),
        (
            lambda body: scope_logs(body).update(records=scope_logs(body).pop("logRecords")),
            "no logRecords, but 'records'",
        ),
    ],
)
@pytest.mark.parametrize("after", [b"", b"\n{}"])
def test_records_under_an_unknown_name_are_not_silently_ignored(
    change: Callable[[Json], object], says: str, after: bytes
) -> None:
    body = changed(change)
    with pytest.raises(InvalidBodyError, match=says):
        read(json.dumps(body).encode() + after)
    sound = request(response())["resourceLogs"]
    found = read(json.dumps({"resourceLogs": [*body["resourceLogs"], *sound]}).encode() + after)
    assert counted(found) == [TOKENS]
    assert [lost.reason for lost in found.rejected] == [Reason.UNDECODABLE]
    assert says in found.rejected[0].detail


def test_single_attribute_may_be_an_object() -> None:
    body = request(response())
    scope_logs(body)["logRecords"].append({"attributes": {"key": "input_tokens", "value": {"intValue": 5}}})
    assert [lost.reason for lost in read(body).rejected] == [Reason.UNRECOGNISED_USAGE]


def test_more_attributes_in_an_object_than_a_record_may_have_are_a_dead_letter() -> None:
    body = request(response())
    many = {f"a{number}": number for number in range(5_000)} | {"input_tokens": 5}
    scope_logs(body)["logRecords"].append({"attributes": many})
    found = read(body)
    assert counted(found) == [TOKENS]
    assert [lost.reason for lost in found.rejected] == [Reason.UNDECODABLE]


def test_unknown_fields_beside_known_ones_are_ignored() -> None:
    body = request(response())
    for part in (body, resource_logs(body), scope_logs(body), record_of(body)):
        part["ofALaterVersion"] = [{"intValue": 5}]
    assert_counted(body)


ONE = json.dumps(request(response())).encode()
TWO = json.dumps(request(response(request_id="req_2"))).encode()


@pytest.mark.parametrize(
    "body", [ONE + TWO, ONE + b"\n" + TWO + b"\n", b"[" + ONE + b", " + TWO + b"]\n", ONE + b"\n\x1e" + TWO]
)
def test_several_requests_in_one_body_all_count(body: bytes) -> None:
    assert_counted(body, TOKENS, TOKENS)


def test_what_follows_a_request_is_not_silently_ignored() -> None:
    for rest, says in (
        (b" and more", "after the request there are 8 other bytes"),
        (b'\n{"resourceSpans": [{}]}', "holds traces"),
        (b'\n{"resourceLogs": [', "cut off"),
    ):
        found = read(ONE + rest)
        assert counted(found) == [TOKENS]
        assert [(lost.reason, says in lost.detail) for lost in found.rejected] == [(Reason.UNDECODABLE, True)]


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf\xef\xbb\xbf" + ONE,
        ONE + b"\0" * 9,
        *(
            ONE.decode().encode(coding)
            for coding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
        ),
    ],
)
def test_other_encodings_of_text_are_read(body: bytes) -> None:
    assert_counted(body)


def in_body(record: Record, encoding: Encoding, *, nested: bool) -> bytes:
    """Return a request whose record has its attributes in the body."""
    pairs: dict[str, Attribute] = dict(record.attributes)
    held: dict[str, Attribute] = {"level": "info", "attributes": pairs} if nested else pairs
    return encode([Group([Record([], AT_NS, AT_NS, body=held)], {"service.name": "team-x"}, "pipeline")], encoding)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("encoding", list(Encoding))
def test_attributes_in_the_body_count(encoding: Encoding, nested: bool) -> None:
    for record in (response(), codex_response()):
        found = normalise_logs(in_body(record, encoding, nested=nested), encoding)
        assert counted(found) == counted(read(request(record)))
        assert not found.rejected


@pytest.mark.parametrize("encoding", list(Encoding))
def test_body_is_ignored_if_the_counts_are_in_the_attributes(encoding: Encoding) -> None:
    held: dict[str, Attribute] = dict(response(input_tokens=5).attributes)
    record = Record(response().attributes, AT_NS, AT_NS, body=held)
    found = normalise_logs(encode([Group([record], {"service.name": "claude-code"}, SCOPE)], encoding), encoding)
    assert counted(found) == [TOKENS]


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize(
    ("record", "resource", "session"),
    [
        (response(session__id=None), {"session.id": "of-resource"}, "of-resource"),
        (response(session__id=""), {"session_id": "of-resource"}, "of-resource"),
        (codex_response().having(conversation__id=None), {"conversation.id": "of-resource"}, "of-resource"),
        (response(session__id=17), {}, "17"),
        (response(session__id=17.0), {}, "17"),
        (response(model=None), {"model": "claude-haiku-4-5"}, "s-1"),
    ],
)
def test_what_a_pipeline_moved_to_the_resource_is_found(
    record: Record, resource: dict[str, Attribute], session: str, encoding: Encoding
) -> None:
    body = encode([Group([record], resource, SCOPE)], encoding)
    (pack,) = normalise_logs(body, encoding).packs
    assert pack.session_id == session
    assert pack.events[0]["model"] in ("claude-haiku-4-5", "gpt-5.1-codex")


def underscored(record: Record) -> Record:
    """Return the record as stores without dots in names have it."""
    return Record([(name.replace(".", "_"), value) for name, value in record.attributes], AT_NS, AT_NS)


@pytest.mark.parametrize(
    "record",
    [
        underscored(response()),
        underscored(response(event__name=None)),
        underscored(codex_response()),
        underscored(codex_response().having(event__name=None)),
        underscored(gemini_response(session__id="s-1", event__name=None)),
        response(event__name="claude-code.api_request"),
        gemini_response(session__id="s-1", event__name="gemini-cli.api_response"),
    ],
)
def test_names_are_recognised_with_other_separators(record: Record) -> None:
    found = read(request(record, service="team-x", scope="pipeline"))
    assert len(counted(found)) == 1
    assert not found.rejected


@pytest.mark.parametrize("encoding", list(Encoding))
def test_dead_letters_of_other_spellings_can_be_replayed(encoding: Encoding) -> None:
    lost = response(event__timestamp=None, session__id=None)
    cases: list[tuple[Record, dict[str, Attribute]]] = [
        (underscored(response(event__timestamp=None)), {}),
        (lost, {"session.id": "s-1"}),
        (response(event__timestamp=None, session__id=1.0), {}),
    ]
    for record, resource in cases:
        without = Record(record.attributes)
        body = encode([Group([without], resource, SCOPE)], encoding)
        (rejected,) = normalise_logs(body, encoding).rejected
        assert rejected.reason is Reason.NO_TIME
        pack = renormalise(rejected.record | {"timeUnixNano": AT_NS})
        assert pack is not None
        assert pack.session_id in ("s-1", "1")
        assert sum(pack.events[0][name] for name in DISJOINT_COUNTS) == TOKENS


@pytest.mark.parametrize("part", [-1, 0.5, "n/a", "", 10**18, [5], True])
@pytest.mark.parametrize(
    ("record", "name"),
    [
        (codex_response(written=0), "cached_token_count"),
        (codex_response(), "cache_write_token_count"),
        (codex_response(), "reasoning_token_count"),
        (gemini_response(session__id="s-1"), "cached_content_token_count"),
    ],
)
def test_part_that_is_no_count_does_not_cost_the_request(record: Record, name: str, part: Attribute) -> None:
    (sound,) = counted(read(request(record)))
    found = assert_counted(request(record.having(**{name: part})), sound)
    assert found.packs[0].events[0]["inconsistent"] is True


@pytest.mark.parametrize("part", [-1, "n/a", 5])
def test_part_of_nothing_is_a_dead_letter(part: Attribute) -> None:
    record = codex_response(whole=0, cached=0, written=0, output=0, reasoning=0).having(cached_token_count=part)
    assert [lost.reason for lost in read(request(record)).rejected] == [Reason.INVALID_COUNTS]


def test_placeholder_of_a_response_id_does_not_join_requests() -> None:
    records = [
        gemini_response(session__id="s-1", event__name="qwen-code.api_response", response_id="unknown", duration_ms=at)
        for at in (1, 2)
    ]
    (pack,) = read(request(*records)).packs
    assert len({event["event_id"] for event in pack.events}) == 2
