"""What metrics and spans say of usage that logs are counted for: never more than was used, and never a cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.support.otlp_points import CUMULATIVE, MadePoint, claude, codex, encode_points
from tests.support.otlp_spans import MadeSpan, chat, encode

from tallystream.schemas.clients.witnesses import MAX_STATEMENTS, Statement, WitnessPack, read_metrics
from tallystream.schemas.connections import Signal
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp import Encoding, protobuf_points
from tallystream.streams.gateway.ingest import decode

TURN = MadeSpan(
    "turn",
    {
        "thread.id": "s-1",
        "model": "gpt-5.1-codex",
        "codex.turn.token_usage.input_tokens": 900,
        "codex.turn.token_usage.cached_input_tokens": 700,
        "codex.turn.token_usage.output_tokens": 80,
    },
    scope="codex_exec",
    resource={"service.name": "codex_exec", "service.version": "0.169.0"},
)
"""As Codex sends it; cached tokens are part of the input."""
RESPONSE = MadeSpan(
    "response",
    {"thread.id": 4, "gen_ai.usage.input_tokens": 900, "gen_ai.usage.output_tokens": 80},
    parent="turn",
    scope="codex_exec",
    resource=TURN.resource,
)
REQUEST = MadeSpan(
    "request",
    {
        "session.id": "s-2",
        "input_tokens": 10,
        "cache_read_tokens": 300,
        "cache_creation_tokens": 40,
        "output_tokens": 5,
    },
    scope="com.anthropic.claude_code.tracing",
    resource={"service.name": "claude-code", "service.version": "2.1.330"},
)


def said(points: Sequence[MadePoint]) -> list[WitnessPack]:
    """Return what points say, in both encodings, which must agree."""
    found = []
    for encoding in Encoding:
        number, witnesses = read_metrics(encode_points(points, encoding), encoding)
        assert number == len(points)
        assert not witnesses.left_out
        found.append(list(witnesses.packs.values()))
    assert found[0] == found[1]
    return found[0]


def told(spans: Sequence[MadeSpan]) -> list[WitnessPack]:
    found = [decode(encode(spans, encoding), encoding, "traces") for encoding in Encoding]
    assert found[0].witnesses == found[1].witnesses
    return found[0].witnesses


def sums(pack: WitnessPack) -> tuple[int, int]:
    return sum(one.input for one in pack.statements), sum(one.output for one in pack.statements)


def test_codex_turn_is_told_with_its_session_and_its_responses_are_not_added() -> None:
    (pack,) = told([TURN, RESPONSE])
    assert (pack.client, pack.version, pack.session_id) == ("codex", "0.169.0", "s-1")
    assert sums(pack) == (900, 80)


def test_claude_request_has_cached_tokens_beside_its_input() -> None:
    (pack,) = told([REQUEST])
    assert (pack.client, pack.session_id, sums(pack)) == ("claude", "s-2", (350, 5))


def test_spans_of_other_programs_are_no_witnesses() -> None:
    assert told([chat("call"), replace(REQUEST, scope="somebody.else", resource={"service.name": "app"})]) == []


def test_claude_points_are_told_by_session() -> None:
    kinds = {"input": 1, "cacheRead": 20, "cacheCreation": 300, "output": 4_000}
    (pack,) = said([claude(kind, value) for kind, value in kinds.items()])
    assert (pack.client, pack.version, pack.session_id, sums(pack)) == ("claude", "1.2.3", "s-1", (321, 4_000))


def test_codex_points_name_no_session_and_overlapping_kinds_are_left_out() -> None:
    kinds = {"input": 900.0, "cached_input": 700.0, "output": 80.0, "reasoning_output": 30.0, "total": 980.0}
    (pack,) = said([codex(kind, value) for kind, value in kinds.items()])
    assert (pack.client, pack.session_id, sums(pack)) == ("codex", "", (900, 80))


def test_gemini_thoughts_are_output_of_their_own_but_those_of_qwen_are_not() -> None:
    kinds = {"input": 1, "cache": 1, "tool": 20, "output": 300, "thought": 4_000}
    for metric, want in {"gemini_cli.token.usage": (21, 4_300), "qwen-code.token.usage": (1, 300)}.items():
        (pack,) = said([MadePoint(metric, n, {"session.id": "s", "type": kind}) for kind, n in kinds.items()])
        assert sums(pack) == want


def ids(points: Sequence[MadePoint]) -> list[str]:
    return [one.id for pack in said(points) for one in pack.statements]


def test_new_counts_are_told_apart_by_their_time_and_copies_are_not() -> None:
    first, second = claude("input", 5), claude("input", 5, start=1.0, at=2.0)
    assert len(set(ids([first, second, first]))) == 2
    assert len(set(ids([claude("input", 5), claude("output", 5), claude("input", 5, "s-2")]))) == 3


def test_cumulative_counts_are_one_statement_for_each_start_of_the_series() -> None:
    def point(value: int, start: float, at: float) -> MadePoint:
        return claude("input", value, start=start, at=at, temporality=CUMULATIVE)

    before, after, restarted = point(5, 0, 1), point(9, 0, 2), point(2, 3, 4)
    first, second, third = ids([before, after, restarted])
    assert first == second != third


def test_id_of_a_statement_is_the_same_in_every_release() -> None:
    """A body that is sent again after an upgrade is a copy, not another statement."""
    (one,) = said([claude("input", 7)])
    (codexs,) = said([codex("input", 7)])
    assert [one.statements[0].id, codexs.statements[0].id] == ["5b8037196efb91e9", "3a4a5897e72fd030"]


@pytest.mark.parametrize("largest", [0, protobuf_points.PARSED])
def test_points_of_a_large_metric_are_read_as_those_of_a_small_one(
    largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large one is read field by field, so that what is not a token's count takes no memory."""
    monkeypatch.setattr(protobuf_points, "PARSED", largest)
    points = [
        claude("input", 5),
        claude("output", 9, temporality=CUMULATIVE),
        codex("output", 7),
        replace(codex("x", 1), metric="m"),
    ]
    assert [sums(pack) for pack in said(points)] == [(5, 9), (0, 7)]


@pytest.mark.parametrize("value", [-1.0, 0.5, float("nan"), float("inf"), 2.0**60])
def test_impossible_count_is_left_out_and_its_neighbours_are_not(value: float) -> None:
    points = [claude("input", value), claude("input", 7, at=2.0)]
    _, found = read_metrics(encode_points(points, Encoding.PROTOBUF), Encoding.PROTOBUF)
    assert found.left_out == 1
    assert [sums(pack) for pack in found.packs.values()] == [(7, 0)]


def test_body_has_a_limit_of_statements_and_says_how_many_it_left_out() -> None:
    points = [claude("input", 1, at=float(at)) for at in range(1, MAX_STATEMENTS + 4)]
    found = decode(encode_points(points, Encoding.PROTOBUF), Encoding.PROTOBUF, "metrics")
    assert sum(len(pack.statements) for pack in found.witnesses) == MAX_STATEMENTS
    assert (found.records, found.left_out) == (len(points), 3)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_without_coverage_nothing_is_read(encoding: Encoding) -> None:
    metrics = decode(encode_points([claude("input", 1)], encoding), encoding, "metrics", witnessed=False)
    traces = decode(encode([TURN], encoding), encoding, "traces", witnessed=False)
    assert (metrics.records, metrics.is_empty, traces.records, traces.is_empty) == (1, True, 1, True)


def test_witnesses_never_become_usage() -> None:
    for encoding in Encoding:
        traces = decode(encode([TURN, RESPONSE, REQUEST], encoding), encoding, "traces")
        assert traces.logs is not None
        assert (traces.logs.packs, traces.logs.rejected, traces.sightings) == ([], [], [])
        assert decode(encode_points([claude("input", 1)], encoding), encoding, "metrics").logs is None


def test_statement_keeps_only_counts_and_ids() -> None:
    (pack,) = told([replace(TURN, attributes=TURN.attributes | {"prompt": "canary"})])
    assert "canary" not in repr(pack)
    assert pack.statements == [Statement(pack.statements[0].id, "spans", TURN.times[1], False, 900, 80)]


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("signal", ["metrics", "traces"])
def test_coverage_changes_nothing_about_what_is_accepted(encoding: Encoding, signal: Signal) -> None:
    """However a body is damaged, it is counted or refused as it would be without coverage."""
    points = [claude("input", 5), codex("output", 7.0), claude("output", 9, temporality=CUMULATIVE)]
    body = encode_points(points, encoding) if signal == "metrics" else encode([REQUEST, chat("call")], encoding)
    damaged = [body[:at] for at in range(0, len(body), 3)]
    damaged += [body[:at] + bytes([body[at] ^ 0x15]) + body[at + 1 :] for at in range(0, len(body), 3)]
    for one in damaged:
        assert outcome(one, encoding, signal, witnessed=True) == outcome(one, encoding, signal, witnessed=False)


def outcome(body: bytes, encoding: Encoding, signal: Signal, *, witnessed: bool) -> object:
    try:
        found = decode(body, encoding, signal, witnessed=witnessed)
    except InvalidBodyError as exc:
        return exc.message
    return found.records, found.sightings, found.logs
