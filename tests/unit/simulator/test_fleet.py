"""A fleet sends what its config says, in Codex's own words, the same every time."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest
from tests.conftest import SHARED
from tests.support.oracle import Logged, Used, codex_usage, count_items, read_logs

from tallystream.schemas.errors import UsageError
from tallystream.simulator import CANARY, Fleet, FleetConfig, Request, Response
from tallystream.simulator.options import Encoding

HOUR = 3_600_000_000_000
START = 1_795_290_000_000_000_000
CONFIG = FleetConfig(agents=8, requests=600, seed=7, start_ns=START, duplicates=0.1, late=0.05, resend=0.05)


def digest(config: FleetConfig) -> str:
    found = hashlib.sha256()
    for request in Fleet(config):
        found.update(request.body)
    return found.hexdigest()


def logs(config: FleetConfig) -> list[Request]:
    return [request for request in Fleet(config) if request.signal == "logs"]


def used(response: Response) -> Used:
    """Return the response as its record says it."""
    r = response
    return Used(
        r.session.session_id, r.model, r.service_tier, r.at_ns, r.input_uncached + r.cache_read + r.cache_write_5m,
        r.cache_read, r.cache_write_5m, r.output, r.reasoning, r.session.attribution,
    )  # fmt: skip


def test_the_same_seed_and_start_give_the_same_bytes() -> None:
    fleet = Fleet(CONFIG)
    assert [request.body for request in fleet] == [request.body for request in fleet]
    assert len({digest(CONFIG), digest(replace(CONFIG, seed=8)), digest(replace(CONFIG, start_ns=START + 1))}) == 3
    assert digest(replace(CONFIG, encoding="protobuf")) != digest(CONFIG)


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_official_classes_read_exactly_what_the_fleet_says_it_sent(encoding: Encoding) -> None:
    for request in Fleet(replace(CONFIG, encoding=encoding)):
        if request.signal != "logs":
            assert count_items(request.body, request.content_type, request.signal) == request.records > 0
            continue
        records = read_logs(request.body, request.content_type)
        assert len(records) == request.records
        assert Counter(codex_usage(records)) == Counter(map(used, request.responses))


def test_exactly_the_billed_responses_asked_for_each_with_a_time_of_its_own() -> None:
    for requests, agents in ((1, 1), (7, 3), (3, 7), (600, 8)):
        sent = {r.n: r for q in logs(replace(CONFIG, agents=agents, requests=requests)) for r in q.responses}
        assert sorted(sent) == list(range(requests))
        assert len({(r.session.session_id, r.at_ns) for r in sent.values()}) == requests


def test_the_order_is_the_fleets_own_time() -> None:
    requests = list(Fleet(CONFIG))
    assert [r.at_ns for r in requests] == sorted(r.at_ns for r in requests)
    assert requests[0].at_ns >= START
    assert requests[-1].at_ns < START + HOUR + 60 * 10**9


def test_shares_are_as_asked() -> None:
    config = replace(CONFIG, agents=20, requests=6000, duplicates=0.2, late=0.1, resend=0.1, encoding="protobuf")
    requests = logs(config)
    first = [request for request in requests if not request.resent]
    copies = sum(request.copies for request in first)
    assert sum(len(request.responses) for request in first) == 6000 + copies
    assert copies / 6000 == pytest.approx(0.2, abs=0.02)
    assert sum(request.late for request in first) / len(first) == pytest.approx(0.1, abs=0.03)
    assert (len(requests) - len(first)) / len(first) == pytest.approx(0.1, abs=0.03)


def test_nothing_is_repeated_or_late_unless_asked_for() -> None:
    config = replace(CONFIG, duplicates=0, late=0, resend=0)
    requests = logs(config)
    assert not any(request.copies or request.late or request.resent for request in requests)
    assert sum(len(request.responses) for request in requests) == 600
    assert all(START <= r.at_ns < START + HOUR + 60 * 10**9 for request in requests for r in request.responses)


def test_a_copy_is_the_same_bytes_in_another_body_and_a_resent_body_the_same_body() -> None:
    config = replace(CONFIG, encoding="protobuf", duplicates=0.3)
    seen: dict[int, list[Request]] = defaultdict(list)
    bodies: Counter[bytes] = Counter()
    for request in logs(config):
        bodies[request.body] += 1
        assert request.resent == (bodies[request.body] == 2)
        if not request.resent:
            for response in request.responses:
                seen[response.n].append(request)
    twice = [places for places in seen.values() if len(places) == 2]
    assert any(first is second for first, second in twice)
    assert any(first is not second for first, second in twice)
    assert max(map(len, seen.values())) == 2


def test_late_events_lie_hours_back_but_within_what_was_asked() -> None:
    config = replace(CONFIG, late=0.5, late_max_ns=5 * HOUR)
    for request in logs(config):
        back = [
            request.at_ns - response.at_ns for response in request.responses[: len(request.responses) - request.copies]
        ]
        assert all((HOUR <= b < 6 * HOUR) if request.late else b < HOUR for b in back)
    hours = {r.at_ns // HOUR for request in logs(config) for r in request.responses}
    assert len(hours) >= 5


def test_sessions_cross_hours_models_and_branches() -> None:
    config = replace(CONFIG, requests=3000, late=0)
    sessions: dict[str, list[Response]] = defaultdict(list)
    for request in logs(config):
        for response in request.responses:
            sessions[response.session.session_id].append(response)
    assert any(len({r.at_ns // HOUR for r in group}) > 1 for group in sessions.values())
    assert any(len({r.model for r in group}) > 1 for group in sessions.values())
    assert any(len({r.session.attribution for r in group}) > 1 for group in sessions.values())
    everything = [r for group in sessions.values() for r in group]
    assert {"priority", "flex", "default", "scale", None} == {r.service_tier for r in everything}
    assert "qwen3-coder-inhouse" in {r.model for r in everything}
    assert any(r.cache_write_5m for r in everything)


def test_some_responses_differ_in_nothing_but_nanoseconds() -> None:
    seen: dict[tuple[object, ...], set[int]] = defaultdict(set)
    for request in logs(replace(CONFIG, requests=3000, late=0, duplicates=0, resend=0)):
        for r in request.responses:
            counts = (r.input_uncached, r.cache_read, r.cache_write_5m, r.output, r.reasoning)
            seen[r.session.session_id, r.model, r.service_tier, counts, r.at_ns // 10**6].add(r.at_ns)
    assert any(len(times) == 2 for times in seen.values())


def test_bodies_are_of_realistic_size() -> None:
    requests = logs(FleetConfig(agents=20, requests=5000, seed=1, start_ns=START, encoding="protobuf"))
    assert 6_000 < median(len(r.body) for r in requests) < 14_000
    assert 14 < median(r.records for r in requests) < 22
    assert 20 < mean(r.records for r in requests) < 28
    assert 1.6 < mean(len(r.responses) for r in requests) < 2.2


def test_content_carries_the_canary_and_what_counts_does_not() -> None:
    holders = Counter(
        (record.get("event.name"), key)
        for request in logs(CONFIG)
        for record in read_logs(request.body, request.content_type)
        for key, _, value in record.attributes
        if CANARY in str(value)
    )
    assert {
        ("codex.user_prompt", "prompt"),
        ("codex.tool_result", "arguments"),
        ("codex.tool_result", "output"),
    } == set(holders)
    secrets = Fleet(CONFIG).secrets()
    assert CANARY in secrets
    said = {r.session.user for request in logs(CONFIG) for r in request.responses} - {None}
    assert said <= secrets


def kinds(records: list[Logged]) -> dict[tuple[str, tuple[str | None, str | None, bool]], dict[str, str]]:
    """Return the kinds of attributes of each kind of event of each scope."""
    found: dict[tuple[str, tuple[str | None, str | None, bool]], dict[str, str]] = defaultdict(dict)
    for record in records:
        for key, kind, _ in record.attributes:
            assert found[record.scope, record.event].setdefault(key, kind) == kind
    return found


def test_all_the_noise_of_the_real_client_is_there() -> None:
    config = replace(CONFIG, requests=1500, encoding="protobuf")
    records = [r for q in logs(config) for r in read_logs(q.body, q.content_type)]
    assert {record.get("event.name") for record in records} == {
        None, "codex.conversation_starts", "codex.startup_phase", "codex.user_prompt", "codex.turn_ttft",
        "codex.api_request", "codex.sse_event", "codex.tool_decision", "codex.tool_result", "codex.turn_cost",
        "codex.websocket_connect", "codex.websocket_request",
    }  # fmt: skip
    assert {record.scope for record in records} == {"codex_otel.log_only", "codex_otel::metrics::client"}
    assert {None, "response.created", "response.output_text.delta"} <= {record.get("event.kind") for record in records}
    warm = [r for r in records if r.event[2] and r.get("input_token_count") == "0"]
    assert warm
    assert all(r.get("tool_token_count") == "0" for r in warm)
    plain = Counter(
        r.get("conversation.id") for r in records if r.event == ("codex.sse_event", "response.completed", False)
    )
    tokens = Counter(
        r.get("conversation.id") for r in records if r.event == ("codex.sse_event", "response.completed", True)
    )
    assert any(plain[session] >= tokens[session] > 0 for session in tokens)
    assert all(record.get("event.timestamp") for record in records if record.get("event.name"))


def test_every_event_and_attribute_occurs_in_recordings_of_the_real_client() -> None:
    captures = SHARED / "captures"
    files = sorted(captures.glob("codex-[bj]*/*.logs.*")) if captures.is_dir() else []
    if not files:
        pytest.skip("no recordings beside this checkout")
    real = kinds([r for file in files for r in read_logs(file.read_bytes(), _content_type(file))])
    config = replace(CONFIG, requests=1500, encoding="protobuf")
    ours = kinds([r for q in logs(config) for r in read_logs(q.body, q.content_type)])
    assert len(ours) >= 15
    for event, attributes in ours.items():
        assert event in real, event
        assert attributes.items() <= real[event].items() | LOGIN, event


LOGIN = {("auth_mode", "string"), ("user.account_id", "string"), ("user.email", "string")}
"""A ChatGPT login adds these to every event; not every event was recorded with one."""


def _content_type(file: Path) -> str:
    return "application/json" if file.suffix == ".json" else "application/x-protobuf"


@pytest.mark.parametrize(
    "change", [{"agents": 0}, {"requests": 0}, {"duplicates": 1.5}, {"late": -0.1}, {"span_ns": 5}, {"late_max_ns": 1}]
)
def test_a_config_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(CONFIG, **change)
