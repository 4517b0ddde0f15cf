"""Whatever bytes arrive: an answer or InvalidBodyError, never anything else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.otlp_bodies import Group, as_json, codex_noise, codex_response, protobuf

from tallystream.schemas.clients import LogsResult, normalise_logs
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp import Encoding, detect_signal, inspect

GOOD = {
    Encoding.PROTOBUF: protobuf([Group([*codex_noise(), codex_response()])]),
    Encoding.JSON: as_json([Group([*codex_noise(), codex_response()])]),
}


def survives(body: bytes, encoding: Encoding) -> None:
    """Every reader answers or refuses."""
    readers: list[Callable[[], Any]] = [
        lambda: normalise_logs(body, encoding),
        lambda: detect_signal(body, encoding),
        lambda: inspect(body, encoding, "logs"),
        lambda: inspect(body, encoding, "metrics"),
        lambda: inspect(body, encoding, "traces"),
    ]
    for read in readers:
        with contextlib.suppress(InvalidBodyError):
            assert isinstance(read(), LogsResult | int | str)


@given(st.binary(max_size=400), st.sampled_from(Encoding))
def test_garbage(body: bytes, encoding: Encoding) -> None:
    survives(body, encoding)


@given(st.sampled_from(Encoding), st.data())
def test_a_good_body_cut_or_with_bytes_changed(encoding: Encoding, data: st.DataObject) -> None:
    body = bytearray(GOOD[encoding])
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(body[: data.draw(st.integers(0, len(body)))]), encoding)


WORDS = """resourceLogs scopeLogs logRecords resource scope attributes key value name timeUnixNano traceId eventName
observedTimeUnixNano stringValue intValue doubleValue boolValue resourceMetrics scopeMetrics metrics gauge sum
dataPoints resourceSpans scopeSpans spans input_token_count"""
KEYS = st.sampled_from(WORDS.split())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5)))
def test_any_json_with_the_words_of_otlp(found: Any) -> None:
    survives(json.dumps(found).encode(), Encoding.JSON)


@given(st.sampled_from(["resourceLogs", "scopeLogs", "logRecords", "attributes", "value"]), SCALARS | st.lists(SCALARS))
def test_any_json_in_any_place(key: str, found: Any) -> None:
    def replaced(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: found if name == key else replaced(inner) for name, inner in node.items()}
        return [replaced(inner) for inner in node] if isinstance(node, list) else node

    survives(json.dumps(replaced(json.loads(GOOD[Encoding.JSON]))).encode(), Encoding.JSON)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(GOOD[Encoding.PROTOBUF][:-1], id="cut at its end"),
        pytest.param(GOOD[Encoding.PROTOBUF][: len(GOOD[Encoding.PROTOBUF]) // 2], id="cut in the middle"),
        pytest.param(GOOD[Encoding.JSON], id="JSON sent as protobuf"),
        pytest.param(b"\xff" * 50, id="garbage"),
        pytest.param(b"\x08\x01", id="resource_logs as a number"),
        pytest.param(b"\x0a\x02\x10\x01", id="scope_logs as a number"),
        pytest.param(GOOD[Encoding.PROTOBUF].replace(b"codex_exec", b"codex\xffexec"), id="resource text is not UTF-8"),
        pytest.param(GOOD[Encoding.PROTOBUF].replace(b"gpt-5.1-codex", b"gpt-5.1\xffcodex"), id="text is not UTF-8"),
        pytest.param(
            GOOD[Encoding.PROTOBUF].replace(b"input_token_count", b"input\xfftoken_count"), id="a key is not UTF-8"
        ),
    ],
)
def test_protobuf_that_is_broken_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBodyError) as refused:
        normalise_logs(body, Encoding.PROTOBUF)
    assert "protobuf" in refused.value.message
