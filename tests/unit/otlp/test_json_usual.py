"""The compiled form finds the records to parse by a walk of its own: what it accepts must give what parsing the whole
body gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.support.examples import examples
from tests.support.log_requests import log_requests, outcome
from tests.support.otlp_bodies import Group, as_json, codex_noise, codex_response, document

from tallystream.schemas.otlp import Encoding, Limits
from tallystream.schemas.otlp.json_usual import UsualLogs
from tallystream.schemas.otlp.limits import LIMITS, DecodingBudget
from tallystream.schemas.otlp.records import TOKENS

SPELLED = st.sampled_from(
    [
        {"separators": (",", ":")},
        {"separators": (",", ":"), "ensure_ascii": False},
        {"indent": 2},
        {"sort_keys": True},
    ]
)
CHANGES = st.sampled_from(
    [
        (b"oken", b"o\\u006ben"),
        (b'"attributes"', b'"attribute"'),
        (b'"attributes"', b'"\\u0061ttributes"'),
        (b'"attributes": [', b'"attributes": 5, "x": ['),
        (b'"key"', b'"name"'),
        (b'"key":', b'"key":5,"x":'),
        (b"[", b"[null,"),
        (b"{", b'{"y": [[{"tokens": 1}], -0.5, 1e400, true, "\\ud800"],'),
        (b"{", b'{"z": 12345678901234567890,'),
        (b"{", b'{"z": 01,'),
        (b"{", b'{"z": "\\x",'),
        (b'"', b"\x01"),
        (b'"', b"\xff"),
        (b":", b": "),
        (b":", b":nul"),
        (b"}", b",}"),
        (b"]", b"] ,"),
        (b'"resource"', b'"schemaUrl"'),
        (b'"scope"', b'"instrumentationLibrary"'),
        (b'"logRecords"', b'"log_records"'),
        (b'"logRecords"', b'"logs"'),
    ]
)


def same(body: bytes, limits: Limits = LIMITS) -> bool:
    """Whether both ways of reading give the same."""
    walked, parsed = (outcome(body, Encoding.JSON, limits, compiled=compiled) for compiled in (True, False))
    assert walked == parsed
    return True


def written(request: ExportLogsServiceRequest, spelled: dict[str, Any]) -> bytes:
    """Return a request in JSON."""
    return json.dumps(MessageToDict(request), **spelled).encode()


@examples(400)
@given(log_requests(), SPELLED)
def test_walk_gives_what_parsing_gives(request: ExportLogsServiceRequest, spelled: dict[str, Any]) -> None:
    assert same(written(request, spelled))


@examples(400)
@given(log_requests(), SPELLED, CHANGES, st.data())
def test_walk_gives_the_same_for_unusual_bodies(
    request: ExportLogsServiceRequest, spelled: dict[str, Any], change: tuple[bytes, bytes], data: st.DataObject
) -> None:
    old, new = change
    parts = written(request, spelled).split(old)
    place = data.draw(st.integers(1, len(parts)), "place")
    assert same(old.join(parts[:place]) + new + old.join(parts[place:]))


@examples(400)
@given(log_requests(), SPELLED, st.data())
def test_walk_gives_the_same_for_damaged_bodies(
    request: ExportLogsServiceRequest, spelled: dict[str, Any], data: st.DataObject
) -> None:
    changed = bytearray(written(request, spelled))
    for _ in range(data.draw(st.integers(1, 3))):
        byte = data.draw(st.sampled_from(b'{}[],:"\\ 0e-\xc3\x1f') | st.integers(0, 255))
        changed[data.draw(st.integers(0, len(changed) - 1))] = byte
    assert same(bytes(changed[: len(changed) - data.draw(st.sampled_from([0, 0, 1, 7]))]))


@pytest.mark.parametrize(
    "limits",
    [Limits(frames=3), Limits(records=9), Limits(usage_records=1), Limits(attributes=4), Limits(record_bytes=300)],
)
def test_limits_apply_to_the_walk(limits: Limits) -> None:
    assert same(
        as_json([Group([*codex_noise(), codex_response(), codex_response()]), Group([codex_response()])]), limits
    )


def test_deep_and_heavy_bodies_are_not_usual() -> None:
    for value in ("[" * 30 + "]" * 30, "[" + "{}," * 100_000 + "{}]"):
        body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"x":%b}]}]}]}' % value.encode()
        assert not usual(body)
        assert same(body)


def usual(body: bytes) -> bool:
    """Whether the walk reads a body."""
    return UsualLogs(body, TOKENS, DecodingBudget(LIMITS)).find(2 << 20)


def usual_bodies() -> Iterator[bytes]:
    """Yield bodies as exporters send them."""
    groups = [Group([*codex_noise(), codex_response()]), Group(codex_noise(), scope=""), Group([codex_response()])]
    yield as_json(groups)
    yield json.dumps(document(groups), indent=4).encode()
    yield '{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"é\\u00e9 \\"x\\""}}]}]}]}'.encode()


def test_walk_takes_what_exporters_send() -> None:
    for body in usual_bodies():
        assert usual(body)
        assert same(body)


def test_walk_leaves_the_unusual_to_the_parser() -> None:
    body = next(usual_bodies())
    for odd in (b"", b"[]", body + b"x", body[:-1], body + body, body.replace(b"resourceLogs", b"resource_logs")):
        assert not usual(odd)
