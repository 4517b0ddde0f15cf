"""Counts that producers write only into a text are read from it, and nothing else in it can change them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.otlp_spans import Attribute, MadeSpan, chat, sightings

from tallystream.schemas.clients.genai import Sighting, normalise
from tallystream.schemas.clients.genai.counts import Counts
from tallystream.schemas.clients.genai.texts import ALL_COUNTS, PROVIDER_METADATA, USAGE_TEXTS


def one(span: MadeSpan) -> Sighting:
    """Return the sighting of one span."""
    (found,) = sightings([span])
    return found


def ai_sdk(tokens: tuple[int, int], metadata: dict[str, Any], **more: Attribute) -> Counts:
    """Return what is read of a call of the Vercel AI SDK."""
    attributes: dict[str, Attribute] = {"ai.operationId": "ai.generateText.doGenerate", **more}
    attributes["ai.response.providerMetadata"] = json.dumps(metadata)
    seen = one(chat("c", tokens, scope="ai", attributes=attributes))
    return Counts(seen.input, seen.output, seen.cache_read, seen.cache_write, seen.reasoning, seen.cache_write_1h)


def test_details_of_openai_in_the_ai_sdk_4_are_read() -> None:
    """Its input includes cached tokens and its output reasoning; both details are only in the metadata."""
    found = ai_sdk((900, 70), {"openai": {"cachedPromptTokens": 512, "reasoningTokens": 33}})
    assert found == Counts(900, 70, 512, None, 33)


def test_cached_tokens_of_anthropic_in_the_ai_sdk_4_are_counted_beside_its_input() -> None:
    """Its input is only the part that is neither read from the cache nor written to it."""
    found = ai_sdk((40, 9), {"anthropic": {"cacheReadInputTokens": 500, "cacheCreationInputTokens": 60}})
    assert found == Counts(600, 9, 500, 60, None)
    assert ai_sdk((40, 9), {"anthropic": {"cacheReadInputTokens": 0}}) == Counts(40, 9, None, None, None)


def test_thoughts_of_gemini_in_the_ai_sdk_5_are_counted_beside_its_output() -> None:
    """Gemini counts candidates and thoughts apart, and the SDK reports only the candidates as output."""
    usage = {"promptTokenCount": 800, "candidatesTokenCount": 45, "thoughtsTokenCount": 14, "totalTokenCount": 859}
    metadata = {"google": {"safetyRatings": None, "usageMetadata": {**usage, "cachedContentTokenCount": 200}}}
    assert ai_sdk((800, 45), metadata) == Counts(800, 59, 200, None, 14)
    assert ai_sdk((800, 59), metadata) == Counts(800, 59, 200, None, 14), "a version that includes thoughts"


def test_cached_tokens_of_bedrock_in_the_ai_sdk_are_counted_once() -> None:
    """Version 5 counts them beside the input; later versions send the parts of an input that includes them."""
    metadata = {"bedrock": {"usage": {"cacheReadInputTokens": 300, "cacheWriteInputTokens": 50}}}
    assert ai_sdk((20, 9), metadata) == Counts(370, 9, 300, 50, None)
    parts: dict[str, Attribute] = {
        "ai.usage.inputTokenDetails.noCacheTokens": 20,
        "ai.usage.inputTokenDetails.cacheReadTokens": 300,
        "ai.usage.inputTokenDetails.cacheWriteTokens": 50,
    }
    assert ai_sdk((370, 9), metadata, **parts) == Counts(370, 9, 300, 50, None)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 90,
                "completion_tokens": 20,
                "total_tokens": 110,
                "prompt_tokens_details": {"cached_tokens": 30},
                "completion_tokens_details": {"reasoning_tokens": 7},
            },
            (90, 20, 30, 7),
        ),
        ({"input_tokens": 90, "output_tokens": 20, "input_tokens_details": {"cached_tokens": 30}}, (90, 20, 30, None)),
        ({"input": 60, "input_cache_read": 30, "output": 13, "output_reasoning": 7, "total": 110}, (90, 20, 30, 7)),
        ({"input": 90}, (90, None, None, None)),
    ],
)
def test_usage_of_langfuse_is_read_from_its_text(usage: dict[str, Any], expected: tuple[int | None, ...]) -> None:
    """Its observations have no count as an attribute; their names are the provider's, or its own disjoint ones."""
    span = MadeSpan(
        "c",
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.model.name": "gpt-5",
            "langfuse.observation.usage_details": json.dumps(usage),
            "session.id": "s-1",
        },
        scope="langfuse-sdk",
    )
    seen = one(span)
    assert (seen.input, seen.output, seen.cache_read, seen.reasoning) == expected
    (call,) = normalise([seen])
    assert (call.provider, call.event["model"], call.session_id) == ("openai", "gpt-5", "s-1")


def test_observation_of_langfuse_that_is_no_request_is_no_call() -> None:
    """Its other observations may repeat the usage of those below them."""
    usage = json.dumps({"input": 90, "output": 9})
    attributes: dict[str, Attribute] = {"langfuse.observation.type": "agent"}
    assert one(MadeSpan("c", {**attributes, "langfuse.observation.usage_details": usage})).kind == "sum"


def test_usage_of_logfire_fills_what_its_attributes_do_not_tell() -> None:
    """Reasoning and the lifetime of cache writes are only in the raw usage, and a request may have no operation."""
    raw = {"cache_creation": {"ephemeral_1h_input_tokens": 20}, "output_tokens_details": {"reasoning_tokens": 4}}
    attributes: dict[str, Attribute] = {
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_creation.input_tokens": 50,
        "gen_ai.usage.raw": json.dumps(raw),
        "request_data": '{"model":"claude-sonnet-4-5"}',
    }
    seen = one(MadeSpan("c", attributes, scope="logfire.anthropic"))
    assert (seen.kind, seen.cache_write, seen.cache_write_1h, seen.reasoning) == ("call", 50, 20, 4)


@pytest.mark.parametrize(
    ("details", "written", "hour"),
    [
        (
            {"cache_read": 30, "cache_creation": 0, "ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
            20,
            5,
        ),
        ({"cache_read": 30, "cache_creation": 20}, 20, None),
        ({"cache_read": 30}, None, None),
    ],
)
def test_details_of_langsmith_are_read_from_its_text(
    details: dict[str, int], written: int | None, hour: int | None
) -> None:
    """Its attributes have input and output only; LangChain counts cache writes by their lifetime, or as a whole."""
    usage = {"input_tokens": 90, "output_tokens": 20, "input_token_details": {"audio": 0, **details}}
    usage["output_token_details"] = {"audio": 0, "reasoning": 7}
    attributes: dict[str, Attribute] = {
        "langsmith.metadata.usage_metadata": json.dumps(usage),
        "langsmith.metadata.thread_id": "thread-7",
        "langsmith.trace.session_id": "the-project",
    }
    seen = one(chat("c", (90, 20), scope="langsmith", attributes=attributes))
    assert (seen.input, seen.output, seen.cache_read, seen.reasoning) == (90, 20, 30, 7)
    assert (seen.cache_write, seen.cache_write_1h, seen.session) == (written, hour, "thread-7")


@pytest.mark.parametrize(("kind", "read"), [("CHAT_MODEL", "call"), ("LLM", "call"), ("AGENT", "sum")])
def test_spans_of_mlflow_are_read(kind: str, read: str) -> None:
    """It writes every attribute as JSON, and the counts and the response only into texts."""
    usage = {"input_tokens": 90, "output_tokens": 20, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 10}
    attributes: dict[str, Attribute] = {
        "mlflow.spanType": json.dumps(kind),
        "mlflow.chat.tokenUsage": json.dumps({**usage, "total_tokens": 110}),
        "mlflow.llm.model": '"claude-sonnet-4-5"',
        "mlflow.llm.provider": '"anthropic"',
        "mlflow.spanOutputs": json.dumps({"id": "msg_1d17df0bc25a4a98943a640c", "content": "secret"}),
    }
    seen = one(MadeSpan("c", attributes, scope="mlflow.tracing.provider"))
    assert (seen.kind, seen.input, seen.output, seen.cache_read, seen.cache_write) == (read, 90, 20, 30, 10)
    assert (seen.response_id is None) == (read == "sum")
    (call,) = normalise([seen])
    assert (call.provider, call.event["model"]) == ("anthropic", "claude-sonnet-4-5")


def test_group_of_an_agents_trace_is_its_session() -> None:
    """Logfire sends the group that the program gave; a group of anything else, such as a consumer, is no session."""
    attributes: dict[str, Attribute] = {"group_id": "thread-7"}
    assert one(MadeSpan("root", {**attributes, "agent_trace_id": "trace_1"})).session == "thread-7"
    assert not sightings([MadeSpan("other", attributes)])


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.dictionaries(TEXT, inner))


@examples(100)
@given(TEXT | JSON.map(json.dumps))
def test_unreadable_texts_change_nothing(shown: str) -> None:
    """Whatever a text contains, it neither raises nor changes a count that an attribute tells."""
    told: dict[str, Attribute] = {
        "gen_ai.usage.cache_read.input_tokens": 20,
        "gen_ai.usage.cache_write.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "gen_ai.usage.total_tokens": 110,
    }
    names = (*USAGE_TEXTS, *ALL_COUNTS, PROVIDER_METADATA)
    seen = one(chat("c", (100, 10), attributes={**told, **dict.fromkeys(names, shown)}))
    assert (seen.input, seen.output, seen.cache_read, seen.cache_write, seen.reasoning) == (100, 10, 20, 5, 3)
