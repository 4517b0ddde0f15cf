"""Qwen Code: similar to Gemini CLI, but its output includes thoughts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.otlp_bodies import AT_NS, Group, Record, encode

from tallystream.schemas.clients import LogsResult, normalise_logs
from tallystream.schemas.otlp import Encoding

ATTRIBUTES: dict[str, Any] = {
    "event.name": "qwen-code.api_response",
    "session.id": "s-1",
    "response_id": "chatcmpl-0123456789abcdef",
    "prompt_id": "s-1########0",
    "model": "gpt-5-mini",
    "input_token_count": 1237,
    "cached_content_token_count": 520,
    "output_token_count": 95,
    "thoughts_token_count": 21,
    "duration_ms": 244,
}


def normalised(*records: dict[str, Any], scope: str = "qwen-code") -> LogsResult:
    """Return the result of a request with these records."""
    made = [Record(list(attributes.items()), AT_NS) for attributes in records]
    groups = [Group(made, {"service.name": scope}, scope)]
    first, second = (normalise_logs(encode(groups, encoding), encoding) for encoding in Encoding)
    assert first == second
    return first


def test_response_becomes_one_event() -> None:
    """Input includes cached tokens and output includes thoughts; the model determines the provider."""
    (pack,) = normalised(ATTRIBUTES).packs
    assert (pack.client, pack.provider, pack.session_id) == ("qwen", "openai", "s-1")
    (event,) = pack.events
    assert (event["input_uncached"], event["cache_read"], event["output"], event["reasoning"]) == (717, 520, 95, 21)
    assert event["turn_id"] == "s-1########0"


def test_response_id_is_the_identity() -> None:
    """Repeated batches and other times do not matter; without an id, all values belong to the identity."""
    ids = {pack.events[0]["event_id"] for pack in normalised(ATTRIBUTES).packs}
    again = normalised({**ATTRIBUTES, "duration_ms": 999}).packs[0].events[0]["event_id"]
    assert ids == {again}
    without = {name: value for name, value in ATTRIBUTES.items() if name != "response_id"}
    one, other = (normalised({**without, "duration_ms": ms}).packs[0].events[0] for ms in (1, 2))
    assert one["event_id"] != other["event_id"]


@pytest.mark.parametrize(
    "response_id",
    ["chatcmpl-42", "chatcmpl-A1", "resp_123456", "17", "chatcmpl-00000000000000000000000000000000"],
)
def test_response_id_that_a_server_gives_again_joins_no_requests(response_id: str) -> None:
    """Ollama draws one of 999 numbers, KoboldCpp has one id for all responses; a batch that comes again is the same."""
    first = {**ATTRIBUTES, "response_id": response_id}
    result = normalised(first, {**first, "input_token_count": 900, "duration_ms": 245})
    assert not result.rejected
    events = result.packs[0].events
    assert len({event["event_id"] for event in events}) == 2
    assert [event["event_id"] for event in normalised(first).packs[0].events] == [events[0]["event_id"]]


def test_providers_in_one_session_give_separate_messages() -> None:
    """Prices depend on the provider of the message."""
    result = normalised(ATTRIBUTES, {**ATTRIBUTES, "response_id": "msg_0123456789abcdef", "model": "claude-haiku-4-5"})
    assert [(pack.provider, len(pack.events)) for pack in result.packs] == [("openai", 1), ("anthropic", 1)]


def test_response_id_distinguishes_qwen_code_from_gemini_cli() -> None:
    """Pipelines may drop names and scopes, and adding thoughts to Qwen Code's output would count them twice."""
    bare = {name: value for name, value in ATTRIBUTES.items() if name != "event.name"}
    (pack,) = normalised(bare, scope="collector").packs
    assert (pack.client, pack.events[0]["output"]) == ("qwen", 95)


def test_subagent_is_kept_as_the_agent() -> None:
    """A subagent's calls belong to the session of its parent."""
    (pack,) = normalised({**ATTRIBUTES, "subagent_name": "researcher"}).packs
    assert pack.attribution["agent"] == "researcher"


@pytest.mark.parametrize("name", ["gen_ai.client.inference.operation.details", "copilot_chat.agent.turn"])
def test_events_repeated_by_spans_are_ignored_without_dead_letters(name: str) -> None:
    """OpenTelemetry's own instrumentations write these events in addition to their spans."""
    attributes = {"event.name": name, "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 10}
    result = normalised(attributes, scope="opentelemetry.util.genai.handler")
    assert (result.packs, result.rejected) == ([], [])
