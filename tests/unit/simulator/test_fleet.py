"""A fleet of any client sends what its configuration says, reproducibly."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import replace
from decimal import Decimal
from statistics import mean, median
from typing import Any, cast, get_args

import pytest
from tests.support.oracle import Used, count_items, read_logs, usage

from tallystream.schemas.errors import UsageError
from tallystream.simulator import Fleet, FleetConfig, Request, Response
from tallystream.simulator.model import ClientName
from tallystream.simulator.options import Encoding

pytestmark = pytest.mark.thorough

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
    r, session = response, response.session
    return Used(
        cast(ClientName, session.client), session.session_id, r.model, r.at_ns, r.input_uncached, r.cache_read,
        r.cache_write_5m,
        r.cache_write_1h, r.output, r.reasoning, r.tool, session.attribution, r.service_tier, r.speed,
        None if r.reported_pico is None else Decimal(r.reported_pico).scaleb(-12),
    )  # fmt: skip


each_client = pytest.mark.parametrize("client", get_args(ClientName))


@pytest.mark.parametrize("client", ["codex", "claude", "gemini", "mixed"])
def test_same_seed_and_start_give_the_same_bytes(client: Any) -> None:
    config = replace(CONFIG, client=client)
    fleet = Fleet(config)
    assert [request.body for request in fleet] == [request.body for request in fleet]
    assert len({digest(config), digest(replace(config, seed=8)), digest(replace(config, start_ns=START + 10**6))}) == 3
    other: Encoding = "json" if client != "gemini" else "mixed"
    assert (digest(replace(config, encoding=other)) != digest(config)) is (client != "gemini")


@pytest.mark.parametrize(
    ("client", "encoding"),
    [("codex", "protobuf"), ("codex", "json"), ("claude", "protobuf"), ("claude", "json"), ("gemini", "json")],
)
def test_official_classes_read_what_the_fleet_reports_as_sent(client: ClientName, encoding: Encoding) -> None:
    for request in Fleet(replace(CONFIG, client=client, encoding=encoding, requests=300)):
        if request.signal != "logs":
            assert count_items(request.body, request.content_type, request.signal) == request.records > 0
            continue
        records = read_logs(request.body, request.content_type)
        assert len(records) == request.records > 0
        read = [replace(found, known_by=()) for found in usage(records)]
        assert Counter(read) == Counter(map(used, request.responses))


def test_mixed_fleet_is_half_codex_and_uses_all_encodings() -> None:
    config = replace(CONFIG, client="mixed", agents=40, requests=400)
    clients = Counter(Fleet(config).client(number)[0] for number in range(40))
    assert clients == {"codex": 20, "claude": 12, "gemini": 8}
    responses: dict[int, str] = {}
    encodings = set()
    for request in logs(config):
        for response in request.responses:
            responses[response.n] = response.session.client
            encodings.add((response.session.client, request.content_type.removeprefix("application/")))
    assert Counter(responses.values()) == {"codex": 200, "claude": 120, "gemini": 80}
    assert encodings == {
        ("codex", "x-protobuf"), ("codex", "json"), ("claude", "x-protobuf"), ("claude", "json"), ("gemini", "json"),
    }  # fmt: skip
    assert {Fleet(replace(config, agents=4)).client(number)[0] for number in range(4)} == set(get_args(ClientName))


def test_each_client_posts_as_its_exporter_does() -> None:
    config = replace(CONFIG, client="mixed", agents=10, requests=300)
    posted = {(r.transport.user_agent.split("/")[0], r.transport.chunked) for r in Fleet(config)}
    assert posted == {
        ("OTel-OTLP-Exporter-Rust", False), ("OTel-OTLP-Exporter-JavaScript", False),
        ("OTel-OTLP-Exporter-JavaScript", True),
    }  # fmt: skip
    chunked = {r.content_type for r in Fleet(config) if r.transport.chunked}
    assert chunked == {"application/json"}


@pytest.mark.parametrize("client", ["codex", "claude", "gemini", "mixed"])
def test_fleet_sends_the_requested_number_of_distinct_responses(client: Any) -> None:
    for requests, agents in ((1, 1), (7, 3), (3, 7), (600, 8)):
        config = replace(CONFIG, client=client, agents=agents, requests=requests, encoding="mixed")
        bodies = logs(config)
        sent = {r.n: r for q in bodies for r in q.responses}
        assert sorted(sent) == list(range(requests))
        assert len({found for q in bodies for found in usage(read_logs(q.body, q.content_type))}) == requests


@each_client
def test_bodies_are_ordered_by_the_fleets_time(client: ClientName) -> None:
    requests = list(Fleet(replace(CONFIG, client=client)))
    assert [r.at_ns for r in requests] == sorted(r.at_ns for r in requests)
    assert requests[0].at_ns >= START
    assert requests[-1].at_ns < START + HOUR + 60 * 10**9


@each_client
def test_shares_match_the_options(client: ClientName) -> None:
    config = replace(CONFIG, client=client, agents=20, requests=6000, duplicates=0.2, late=0.1, resend=0.1)
    requests = logs(config)
    first = [request for request in requests if not request.resent]
    copies = sum(request.copies for request in first)
    assert sum(len(request.responses) for request in first) == 6000 + copies
    assert copies / 6000 == pytest.approx(0.2, abs=0.02)
    assert sum(request.late for request in first) / len(first) == pytest.approx(0.1, abs=0.03)
    assert (len(requests) - len(first)) / len(first) == pytest.approx(0.1, abs=0.03)


@each_client
def test_nothing_is_repeated_or_late_by_default(client: ClientName) -> None:
    config = replace(CONFIG, client=client, duplicates=0, late=0, resend=0)
    requests = logs(config)
    assert not any(request.copies or request.late or request.resent for request in requests)
    assert sum(len(request.responses) for request in requests) == 600
    assert all(START <= r.at_ns < START + HOUR + 60 * 10**9 for request in requests for r in request.responses)


@each_client
def test_copies_and_resent_bodies_have_identical_bytes(client: ClientName) -> None:
    config = replace(CONFIG, client=client, duplicates=0.3)
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


@each_client
def test_late_events_are_hours_old_within_the_configured_maximum(client: ClientName) -> None:
    config = replace(CONFIG, client=client, late=0.5, late_max_ns=5 * HOUR)
    for request in logs(config):
        back = [
            request.at_ns - response.at_ns for response in request.responses[: len(request.responses) - request.copies]
        ]
        assert all((HOUR <= b < 6 * HOUR) if request.late else b < HOUR for b in back)
    hours = {r.at_ns // HOUR for request in logs(config) for r in request.responses}
    assert len(hours) >= 5


@each_client
def test_sessions_cross_hours_models_and_branches(client: ClientName) -> None:
    config = replace(CONFIG, client=client, requests=3000, late=0)
    sessions: dict[str, list[Response]] = defaultdict(list)
    for request in logs(config):
        for response in request.responses:
            sessions[response.session.session_id].append(response)
    assert any(len({r.at_ns // HOUR for r in group}) > 1 for group in sessions.values())
    assert any(len({r.model for r in group}) > 1 for group in sessions.values())
    assert any(len({r.session.attribution for r in group}) > 1 for group in sessions.values())
    everything = [r for group in sessions.values() for r in group]
    asked = {"codex": "service_tier", "claude": "speed"}
    kinds = {"codex": {"priority", "flex", "default", "scale", None}, "claude": {"normal", "fast", "turbo"}}
    if client in asked:
        assert {getattr(r, asked[client]) for r in everything} == kinds[client]
    assert "qwen3-coder-inhouse" in {r.model for r in everything}
    assert any(r.reported_pico for r in everything) is (client == "claude")
    assert any(r.cache_write_5m for r in everything) is (client != "gemini")
    assert any(r.cache_write_1h for r in everything) is (client == "claude")
    assert any(r.tool for r in everything) is (client == "gemini")
    assert any(r.reasoning for r in everything) is (client != "claude")


@each_client
def test_some_responses_are_nearly_identical(client: ClientName) -> None:
    """Codex's in nanoseconds, Claude Code's in the request id, Gemini CLI's in 1 ms of duration."""
    config = replace(CONFIG, client=client, requests=3000, late=0, duplicates=0, resend=0)
    seen: Counter[tuple[object, ...]] = Counter()
    for request in logs(config):
        for r in request.responses:
            counts = (r.input_uncached, r.cache_read, r.cache_write_5m, r.cache_write_1h, r.output, r.reasoning, r.tool)
            seen[r.session.session_id, r.model, r.service_tier, r.speed, counts, r.at_ns // 10**6] += 1
    assert 2 in seen.values()


@pytest.mark.parametrize(
    ("client", "bytes_", "records"),
    [
        ("codex", (6_000, 14_000), (20, 28)),
        ("claude", (4_000, 14_000), (6, 18)),
        ("gemini", (50_000, 130_000), (6, 18)),
    ],
)
def test_bodies_are_of_realistic_size(client: Any, bytes_: tuple[int, int], records: tuple[int, int]) -> None:
    config = FleetConfig(agents=20, requests=3000, seed=1, start_ns=START, client=client, duplicates=0)
    requests = [r for r in logs(config) if client == "gemini" or r.content_type != "application/json"]
    assert bytes_[0] < median(len(r.body) for r in requests) < bytes_[1]
    assert records[0] < mean(r.records for r in requests) < records[1]
    assert 1.4 < mean(len(r.responses) for r in requests) < 2.3


@pytest.mark.parametrize(
    "change",
    [
        {"agents": 0},
        {"requests": 0},
        {"duplicates": 1.5},
        {"late": -0.1},
        {"span_ns": 5},
        {"late_max_ns": 1},
        {"client": "gemini", "encoding": "protobuf"},
    ],
)
def test_invalid_fleet_config_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(CONFIG, **change)
