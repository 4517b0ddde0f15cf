"""The bodies of each simulated client: its vocabulary, its other records, and content that must never be stored."""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from tests.conftest import SHARED
from tests.support.oracle import Logged, read_logs

from tallystream.simulator import CANARY, Fleet, FleetConfig, Request
from tallystream.simulator.model import ClientName

START = 1_795_290_000_000_000_000
CLIENTS: tuple[ClientName, ...] = get_args(ClientName)
each_client = pytest.mark.parametrize("client", CLIENTS)


@cache
def requests(client: ClientName) -> list[Request]:
    config = FleetConfig(agents=8, requests=900, seed=7, start_ns=START, client=client, encoding="mixed", late=0.05)
    return list(Fleet(config))


@cache
def records(client: ClientName) -> list[Logged]:
    return [r for q in requests(client) if q.signal == "logs" for r in read_logs(q.body, q.content_type)]


CONTENT = {
    "codex": {
        ("codex.user_prompt", "prompt"), ("codex.tool_result", "arguments"), ("codex.tool_result", "output"),
    },
    "claude": {
        ("user_prompt", "prompt"), ("user_prompt", "prompt_text"), ("assistant_response", "response"),
        ("tool_decision", "tool_parameters"), ("tool_result", "tool_parameters"), ("tool_result", "tool_input"),
    },
    "gemini": {
        ("gemini_cli.user_prompt", "prompt"), ("gemini_cli.api_request", "request_text"),
        ("gemini_cli.api_response", "response_text"), ("gemini_cli.tool_call", "function_args"),
        ("gen_ai.client.inference.operation.details", "gen_ai.system_instructions"),
        ("gen_ai.client.inference.operation.details", "gen_ai.input.messages"),
        ("gen_ai.client.inference.operation.details", "gen_ai.output.messages"),
    },
}  # fmt: skip
"""Attributes with prompts, answers and tool content. Some are always sent, all of them if the user allows it."""


@each_client
def test_only_content_attributes_contain_the_canary(client: ClientName) -> None:
    holders = {
        (record.get("event.name"), key)
        for record in records(client)
        for key, _, value in record.attributes
        if CANARY in str(value)
    }
    assert holders == CONTENT[client]
    in_resource = {key for r in records(client) for key, value in r.resource.items() if CANARY in str(value)}
    assert in_resource == ({"process.command_args"} if client == "gemini" else set())
    bodies = Counter(q.signal for q in requests(client) if q.signal != "logs" and CANARY.encode() in q.body)
    assert set(bodies) == {"codex": set(), "claude": {"traces"}, "gemini": {"traces", "metrics"}}[client]


@each_client
def test_user_names_in_records_are_treated_as_secrets(client: ClientName) -> None:
    config = FleetConfig(agents=8, requests=900, seed=7, start_ns=START, client=client)
    secrets = Fleet(config).secrets()
    assert CANARY in secrets
    said = {r.session.user for request in requests(client) for r in request.responses} - {None}
    names = ("user.id", "enduser.id", "user.email", "user.account_id", "user.account_uuid", "installation.id")
    said |= {value for record in records(client) for key, _, value in record.attributes if key in names}
    said |= {value for record in records(client) for key, value in record.resource.items() if key in names}
    assert said
    assert said <= secrets


def kinds(found: list[Logged]) -> dict[tuple[str, tuple[str | None, str | None, bool]], dict[str, str]]:
    """Return the kinds of attributes of each kind of event of each scope."""
    by_event: dict[tuple[str, tuple[str | None, str | None, bool]], dict[str, str]] = defaultdict(dict)
    for record in found:
        for key, kind, _ in record.attributes:
            assert by_event[record.scope, record.event].setdefault(key, kind) == kind
    return by_event


NOISE = {
    "codex": {
        None, "codex.conversation_starts", "codex.startup_phase", "codex.user_prompt", "codex.turn_ttft",
        "codex.api_request", "codex.sse_event", "codex.tool_decision", "codex.tool_result", "codex.turn_cost",
        "codex.websocket_connect", "codex.websocket_request",
    },
    "claude": {
        "managed_settings_resolved", "plugin_loaded", "user_prompt", "tool_decision", "tool_result", "api_request",
        "assistant_response", "subagent_completed", "retention_sweep",
    },
    "gemini": {
        "gemini_cli.config", "gemini_cli.ripgrep_fallback", "gemini_cli.startup_stats", "gemini_cli.user_prompt",
        "gemini_cli.model_routing", "gemini_cli.api_request", "gemini_cli.api_error", "gemini_cli.api_response",
        "gemini_cli.tool_call", "gemini_cli.plan.approval_mode_duration", "gen_ai.client.inference.operation.details",
    },
}  # fmt: skip
SCOPES = {
    "codex": {"codex_otel.log_only", "codex_otel::metrics::client"},
    "claude": {"com.anthropic.claude_code.events"},
    "gemini": {"gemini-cli"},
}


@each_client
def test_simulated_clients_send_all_record_types_of_the_real_ones(client: ClientName) -> None:
    found = records(client)
    assert {record.get("event.name") for record in found} == NOISE[client]
    assert {record.scope for record in found} == SCOPES[client]
    assert all(record.get("event.timestamp") for record in found if record.get("event.name"))
    assert {request.signal for request in requests(client)} == {"logs", "metrics", "traces"}


def test_simulated_codex_sends_completions_and_warm_ups_without_counts() -> None:
    found = records("codex")
    assert {None, "response.created", "response.output_text.delta"} <= {record.get("event.kind") for record in found}
    warm = [r for r in found if r.event[2] and r.get("input_token_count") == "0"]
    assert warm
    assert all(r.get("tool_token_count") == "0" for r in warm)
    plain, tokens = (
        Counter(
            r.get("conversation.id") for r in found if r.event == ("codex.sse_event", "response.completed", counted)
        )
        for counted in (False, True)
    )
    assert any(plain[session] >= tokens[session] > 0 for session in tokens)


def test_simulated_claude_numbers_records_per_run() -> None:
    runs: dict[str, list[int]] = defaultdict(list)
    for record in records("claude"):
        runs[record.get("session.id")].append(record.get("event.sequence"))
    assert all(0 in numbers for numbers in runs.values())
    for numbers in runs.values():
        assert set(numbers) == set(range(max(numbers) + 1))
    assert any(numbers.count(0) > 1 for numbers in runs.values()), "a resumed run starts over"
    assert any(r.get("agent_id") for r in records("claude") if r.get("event.name") == "api_request")
    assert all(r.time_ns == r.observed_ns and r.time_ns % 10**6 == 0 for r in records("claude"))


def test_simulated_gemini_reports_each_response_twice() -> None:
    told, again = (
        Counter(
            (r.get("session.id"), r.get("input_token_count") or r.get("gen_ai.usage.input_tokens"))
            for r in records("gemini")
            if r.get("event.name") == name and (r.get("status_code") or r.get("gen_ai.response.id"))
        )
        for name in ("gemini_cli.api_response", "gen_ai.client.inference.operation.details")
    )
    assert told == again
    assert {record.get("role") for record in records("gemini")} >= {"main", "utility_router"}


LOGIN = {
    "codex": {"auth_mode", "user.account_id", "user.email"},
    "claude": {"user.account_id", "user.account_uuid", "user.email", "organization.id"},
    "gemini": {"user.email"},
}
"""A login adds these to every event; not all recordings were made with a login."""
TOLD = {
    "codex": set(),
    "claude": {"vcs.repository.name", "vcs.ref.head.name", "deployment.environment.name", "enduser.id", "team",
               "cost.center", "tool_parameters", "tool_input"},
    "gemini": {"prompt", "request_text", "response_text", "function_args", "gen_ai.input.messages",
               "gen_ai.output.messages"},
}  # fmt: skip
"""What users set in OTEL_RESOURCE_ATTRIBUTES, which Claude Code copies to every event, and what they let be logged: the
recordings were made without most of it."""


@each_client
def test_simulated_events_and_attributes_occur_in_recordings(client: ClientName) -> None:
    captures = SHARED / "captures"
    files = sorted(captures.glob(f"{client}-[bj]*/*.logs.*")) if captures.is_dir() else []
    if not files:
        pytest.skip("no recordings beside this checkout")
    real = kinds([r for file in files for r in read_logs(unzipped(file), _content_type(file))])
    ours = kinds(records(client))
    assert len(ours) >= 9
    for event, attributes in ours.items():
        assert event in real, event
        extra = attributes.items() - real[event].items()
        assert extra <= {(name, "string") for name in LOGIN[client] | TOLD[client]}, event


@pytest.mark.parametrize("client", ["claude", "gemini"])
def test_simulated_records_have_the_structure_of_recorded_ones(client: ClientName) -> None:
    """Attributes in the same order, the same fields beside them, ids in the same events."""
    files = sorted((SHARED / "captures").glob(f"{client}-[bj]*/*.logs.*"))
    if not files:
        pytest.skip("no recordings beside this checkout")
    real = [r for file in files for r in read_logs(unzipped(file), _content_type(file))]
    orders: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for record in real:
        orders[record.get("event.name")].add(tuple(key for key, *_ in record.attributes))
    for record in records(client):
        name = record.get("event.name")
        keys = [key for key, *_ in record.attributes]
        assert any(
            [key for key in keys if key in order] == [key for key in order if key in keys] for order in orders[name]
        ), (name, keys)
    untraced = {r.get("event.name") for r in real if not r.trace_id}
    assert {r.get("event.name") for r in records(client) if not r.trace_id} <= untraced
    assert all(isinstance(r.body, str) and r.observed_ns == r.time_ns and not r.name for r in [*real, *records(client)])
    bodies = {r.get("event.name"): str(r.body).split()[0] for r in real}
    assert all(str(r.body).split()[0] == bodies[r.get("event.name")] for r in records(client))


def unzipped(file: Path) -> bytes:
    raw = file.read_bytes()
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


def _content_type(file: Path) -> str:
    return "application/json" if file.suffix == ".json" else "application/x-protobuf"
