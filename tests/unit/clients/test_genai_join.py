"""Which spans belong to one call. Order, splitting into requests and repeats must not change any total."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.otlp_spans import Attribute, MadeSpan, chat, sightings

from tallystream.schemas.clients.genai import Call, normalise
from tallystream.schemas.clients.providers import provider_of
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.usage import UsageBatch

ID = "chatcmpl-a{:019d}".format
OTHER: dict[str, Any] = {"service.name": "litellm", "service.instance.id": "process-2"}


def calls(*spans: MadeSpan) -> list[Call]:
    """Return the calls in one request of these spans."""
    return normalise(sightings(list(spans)))


def tokens(found: list[Call]) -> list[tuple[int, int]]:
    """Return input and output of each call."""
    names = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h")
    return sorted((sum(call.event[name] for name in names), call.event["output"]) for call in found)


def agent(name: str, usage: tuple[int, int] | None = None, **more: Any) -> MadeSpan:
    """Return an agent's span, with or without the sum of its calls."""
    counts = {} if usage is None else {"gen_ai.usage.input_tokens": usage[0], "gen_ai.usage.output_tokens": usage[1]}
    return MadeSpan(name, {"gen_ai.operation.name": "invoke_agent", **counts, **more.pop("attributes", {})}, **more)


def test_parent_spans_repeating_their_childrens_tokens_do_not_count() -> None:
    """The spans of the run and of its delegated agent are sums of the calls below them."""
    found = calls(
        agent("run", (330, 33)),
        chat("c1", (100, 10), parent="run"),
        agent("helper", (230, 23), parent="run"),
        chat("c2", (110, 11), parent="helper"),
        chat("c3", (120, 12), parent="helper"),
    )
    assert tokens(found) == [(100, 10), (110, 11), (120, 12)]


def test_aggregate_without_calls_counts_once_as_aggregate() -> None:
    """Of two nested sums, the outer one includes the inner one."""
    found = calls(agent("run", (330, 33)), agent("helper", (230, 23), parent="run"))
    assert tokens(found) == [(330, 33)]
    assert found[0].event["basis"] == "aggregate"


def test_aggregate_does_not_count_while_a_call_may_be_below_it() -> None:
    """A span between the call and the root is missing."""
    assert tokens(calls(agent("run", (100, 10)), chat("c", (100, 10), parent="lost"))) == [(100, 10)]


def test_response_id_joins_spans_across_traces_and_the_innermost_counts() -> None:
    """An agent and its gateway saw the same call; both its session and its real model are kept."""
    outer = chat(
        "outer",
        (100, 10),
        attributes={
            "gen_ai.response.id": ID(1),
            "gen_ai.response.model": "smart",
            "gen_ai.conversation.id": "s-1",
            "gen_ai.agent.name": "boss",
        },
    )
    inner = chat(
        "inner",
        (100, 10),
        trace="other",
        start=0.2,
        end=0.9,
        scope="litellm",
        resource=OTHER,
        attributes={
            "gen_ai.operation.name": "acompletion",
            "gen_ai.response.id": ID(1),
            "litellm.provider.model": "anthropic/claude-sonnet-4-5",
            "gen_ai.usage.cache_read.input_tokens": 40,
            "gen_ai.cost.total_cost": 0.5,
        },
    )
    (call,) = calls(outer, inner)
    assert (call.client, call.session_id, call.agent, call.provider) == ("pydantic-ai", "s-1", "boss", "anthropic")
    assert call.event["model"] == "claude-sonnet-4-5"
    assert (call.event["input_uncached"], call.event["cache_read"], call.event["reported_cost_usd"]) == (60, 40, "0.5")
    assert call.event["seen_by"] == ["litellm", "pydantic-ai"]


def test_cache_hit_of_a_gateway_adds_no_cost() -> None:
    """A later cache hit reports the whole usage again, under the id of the cached call."""
    again = [
        chat(f"c{n}", (100, 10), trace=f"t{n}", start=n, end=n + 0.5, attributes={"gen_ai.response.id": ID(1)})
        for n in range(3)
    ]
    assert tokens(calls(*again)) == [(100, 10)]


@pytest.mark.parametrize(
    "response_id",
    [
        "chatcmpl-123",  # Ollama draws one of 999 numbers
        "00000000-0000-0000-0000-000000000000",
        "chatcmpl-00000000000000000000000000000000",
        "resp_xxxxxxxxxxxxxxxxxxxxxxxx",
        "[object Object]",
        "not available",
    ],
)
def test_generic_response_id_joins_no_spans(response_id: str) -> None:
    """Servers that number their responses, or do not have ids, give the same one to different calls."""
    spans = [chat(f"c{n}", trace=f"t{n}", attributes={"gen_ai.response.id": response_id}) for n in range(2)]
    assert len({call.event["event_id"] for call in calls(*spans)}) == 2


@pytest.mark.parametrize(
    "response_id",
    [
        "msg_0123456789abcdef",
        "chatcmpl-2EHCQqsRzdOlFskNehCMu2oOMTXhSjey",
        "resp_0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        "0f000000-0000-0000-0000-0000000000a1",
        "gen-1731234567-AbCdEfGhIjKl",
    ],
)
def test_response_id_of_a_provider_joins_spans(response_id: str) -> None:
    spans = [chat(f"c{n}", trace=f"t{n}", attributes={"gen_ai.response.id": response_id}) for n in range(2)]
    assert len(calls(*spans)) == 1


def test_nested_calls_with_equal_counts_are_one_call() -> None:
    """The provider's library below a framework: the inner span counts, and the outer one fills its gaps."""
    outer = chat("outer", (100, 11), attributes={"gen_ai.usage.reasoning.output_tokens": 4})
    inner = chat("inner", (100, 10), parent="outer", start=0.1, end=0.9, scope="com.anthropic.sdk.python")
    (call,) = calls(outer, inner)
    assert (call.event["output"], call.event["reasoning"]) == (10, 4)


def test_call_span_above_several_calls_is_their_aggregate() -> None:
    """Embedding many texts gives one span above the spans of the requests, all with the same name."""
    outer = chat("outer", (50, 0), attributes={"gen_ai.operation.name": "embeddings"})
    inner = [
        chat(f"i{n}", (20 + 10 * n, 0), parent="outer", attributes={"gen_ai.operation.name": "embeddings"})
        for n in range(2)
    ]
    assert tokens(calls(outer, *inner)) == [(20, 0), (30, 0)]


def test_call_made_by_a_tool_of_another_call_counts_separately() -> None:
    """Two response ids are two calls, even if one span is below the other."""
    outer = chat("outer", (100, 10), attributes={"gen_ai.response.id": ID(1)})
    inner = chat("inner", (30, 3), parent="outer", attributes={"gen_ai.response.id": ID(2)})
    assert tokens(calls(outer, inner)) == [(30, 3), (100, 10)]


def test_call_made_by_a_tool_counts_separately_without_ids() -> None:
    """The outer call does not count what the inner ones count together, so it is not their sum."""
    inner = [chat(f"i{n}", (30 + n, 3), parent="outer", start=0.2 * n, end=0.2 * n + 0.1) for n in range(2)]
    assert tokens(calls(chat("outer", (500, 50)), *inner)) == [(30, 3), (31, 3), (500, 50)]
    both = [replace(span, name=f"{span.name}-again", scope="other") for span in inner]
    assert tokens(calls(chat("outer", (61, 6)), *inner, *both)) == [(30, 3), (31, 3)]


def test_sum_of_calls_of_which_one_is_silent_does_not_count() -> None:
    """A stream without usage may be the rest of what the outer span counts."""
    inner = (chat("i0", (30, 3), parent="outer"), chat("i1", None, parent="outer"))
    assert tokens(calls(chat("outer", (500, 50)), *inner)) == [(30, 3)]


def twin(name: str, tokens: tuple[int, int] = (100, 10), at: float = 0.0, **more: Any) -> MadeSpan:
    """Return the sighting of a second instrumentation, in its own trace and without an id."""
    more = {"trace": name, "start": at + 0.1, "end": at + 0.9, "scope": "other.instrumentation", **more}
    return chat(name, tokens, **more)


def test_call_seen_by_two_instrumentations_counts_once() -> None:
    """Their tokens are equal and one lies within the other in time; each sees the call once."""
    assert len(calls(chat("c", attributes={"gen_ai.response.id": ID(1)}), twin("w"))) == 1
    assert len(calls(chat("c"), twin("w"))) == 1
    assert len(calls(chat("c"), twin("w", resource=OTHER))) == 2, "another process"
    assert len(calls(chat("c"), twin("w", at=5.0))) == 2, "another time"
    assert len(calls(chat("c"), twin("w", tokens=(101, 10)))) == 2, "other tokens"
    assert len(calls(chat("c"), chat("d", trace="d", start=0.1, end=0.9))) == 2, "the same instrumentation"


@pytest.mark.parametrize("known", [0, 40], ids=["nothing", "uncached"])
def test_call_of_which_one_instrumentation_knows_less_of_the_input_counts_once(known: int) -> None:
    """Some streams are read without their input, and some producers leave out what was cached."""
    cached = {"gen_ai.response.id": ID(1), "gen_ai.usage.cache_read.input_tokens": 60}
    whole = chat("c", (100, 10), attributes=cached)
    for seen in (twin("w", (known, 10)), twin("w", (known, 10), trace="t", parent="c")):
        assert tokens(calls(whole, seen)) == [(100, 10)]
    assert len(calls(whole, twin("w", (known, 11)))) == 2, "another output"
    assert len(calls(whole, twin("w", (known + 1, 10)))) == 2, "another input"


def test_call_of_which_one_instrumentation_counts_cached_tokens_beside_its_input_counts_once() -> None:
    """Both know what was cached, but the input of one of them does not include it."""
    cached: dict[str, Attribute] = {
        "gen_ai.usage.cache_read.input_tokens": 30,
        "gen_ai.usage.cache_write.input_tokens": 10,
    }
    whole = chat("c", (100, 10), attributes={"gen_ai.response.id": ID(1), **cached})
    beside = twin("w", (60, 10), attributes=cached)
    below = twin("w", (60, 10), attributes=cached, trace="t", parent="c")
    for seen in (beside, below):
        found = calls(whole, seen)
        assert tokens(found) == [(100, 10)]
        assert (found[0].event["cache_read"], found[0].event["input_uncached"]) == (30, 60)
    fewer: dict[str, Attribute] = {"gen_ai.usage.cache_read.input_tokens": 20}
    assert len(calls(whole, twin("w", (60, 10), attributes=fewer))) == 2, "another part was cached"


def test_simultaneous_equal_calls_are_counted_per_instrumentation() -> None:
    """Three parallel requests with equal counts, seen twice each, are three calls."""
    spans = [chat(f"c{n}", trace=f"c{n}") for n in range(3)] + [twin(f"w{n}") for n in range(3)]
    assert tokens(calls(*spans)) == [(100, 10)] * 3


def test_failed_attempt_counts_only_with_usage() -> None:
    """The span of a retry, and a request that failed after the provider had counted it."""
    assert tokens(calls(chat("a", None, failed=True), chat("z", (0, 0), failed=True))) == []
    assert tokens(calls(chat("b", (70, 7), failed=True))) == [(70, 7)]


def test_aborted_stream_counts_its_reported_tokens() -> None:
    """Anthropic reports the input at the start of a stream; it is billed even if the stream is aborted."""
    given_up = MadeSpan("c", {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 575})
    assert tokens(calls(given_up)) == [(575, 0)]


def test_cost_belongs_to_the_outermost_session() -> None:
    """A delegated agent names its own conversation; the agent is that of the nearest span."""
    spans = [
        agent("boss", attributes={"gen_ai.conversation.id": "mine", "gen_ai.agent.name": "boss"}),
        agent("helper", parent="boss", attributes={"gen_ai.conversation.id": "own", "gen_ai.agent.name": "helper"}),
        chat("c", parent="helper", attributes={"gen_ai.conversation.id": "own"}),
    ]
    (call,) = calls(*spans)
    assert (call.session_id, call.agent) == ("mine", "helper")


def test_trace_is_the_session_if_none_is_named() -> None:
    """A run of an agent that does not name a session."""
    (call,) = calls(chat("c"))
    assert call.session_id == f"trace-{call.owner.trace_id}"


@pytest.mark.parametrize(
    ("named", "model", "expected"),
    [
        ("openai", "gpt-5-2025-08-07", ("openai", "gpt-5-2025-08-07")),
        ("openai.chat", "gpt-5", ("openai", "gpt-5")),
        ("anthropic.messages", "claude-haiku-4-5", ("anthropic", "claude-haiku-4-5")),
        ("azure.ai.openai", "gpt-5", ("azure", "gpt-5")),
        ("aws.bedrock", "anthropic.claude-sonnet-4-5-v1:0", ("aws", "anthropic.claude-sonnet-4-5-v1:0")),
        ("aws.bedrock", "nova-pro-v1:0", ("aws", "amazon.nova-pro-v1:0")),
        ("gcp.vertex_ai", "gemini-2.5-pro", ("google", "gemini-2.5-pro")),
        (None, "openai/gpt-5", ("openai", "gpt-5")),
        (None, "openrouter/anthropic/claude-opus-4", ("openrouter", "anthropic/claude-opus-4")),
        ("openrouter", "anthropic/claude-opus-4", ("openrouter", "anthropic/claude-opus-4")),
        ("github", "gpt-5", ("openai", "gpt-5")),
        ("strands-agents", "claude-opus-4-1", ("anthropic", "claude-opus-4-1")),
        ("xai", "grok-4", ("x-ai", "grok-4")),
        ("ollama", "qwen3:8b", ("ollama", "qwen3:8b")),
        (None, "house-model", ("unknown", "house-model")),
    ],
)
def test_provider_and_model_are_read_from_the_spans(named: str | None, model: str, expected: tuple[str, str]) -> None:
    """Names are mapped to those of the price book; unknown names are kept."""
    assert provider_of(named, model) == expected


# -- rules over generated fleets

SEEDS = st.integers(0, 2**32).map(Random)


@dataclass
class Fleet:
    """Spans of several agents, and the true tokens of their calls."""

    spans: list[MadeSpan] = field(default_factory=list)
    truth: list[tuple[int, int]] = field(default_factory=list)


@st.composite
def fleets(draw: st.DrawFn, *, sums: bool = True) -> Fleet:
    """Draw agents whose calls are seen once, twice in nested spans, also by a gateway, or in separate traces."""
    fleet = Fleet()
    random = Random(draw(st.integers(0, 2**32)))
    for run in range(draw(st.integers(1, 3))):
        root, total = f"r{run}", [0, 0]
        clock = 100.0 * run
        for number in range(draw(st.integers(0, 4))):
            name = f"{run}{number}"
            counts = random.choice([(100, 10), (random.randint(1, 9999), random.randint(2, 999))])
            clock += 2
            made = chat(f"c{name}", counts, trace=root, parent=root, start=clock, end=clock + 1)
            ident = {"gen_ai.response.id": ID(run * 100 + number)}
            seen = draw(st.sampled_from(["once", "id", "below", "gateway", "elsewhere", "unread", "cache hit"]))
            inside: dict[str, Any] = {"start": clock + 0.1, "end": clock + 0.9}
            if seen in ("id", "gateway", "cache hit"):
                made = replace(made, attributes={**made.attributes, **ident})
            fleet.spans.append(made)
            if seen == "below":
                fleet.spans.append(
                    chat(f"i{name}", counts, trace=root, parent=made.name, scope="sdk", attributes=ident, **inside)
                )
            if seen == "gateway":
                more: dict[str, Any] = {"scope": "litellm", "resource": OTHER, "attributes": ident}
                fleet.spans.append(chat(f"g{name}", counts, trace=f"g{name}", **more, **inside))
            if seen == "elsewhere":
                fleet.spans.append(chat(f"e{name}", counts, trace=f"e{name}", scope="twin", **inside))
            if seen == "unread":
                fleet.spans.append(chat(f"u{name}", (0, counts[1]), trace=f"u{name}", scope="twin", **inside))
            if seen == "cache hit":
                later: dict[str, Any] = {"start": clock + 50, "end": clock + 50.1, "attributes": ident}
                fleet.spans.append(chat(f"h{name}", counts, trace=f"h{name}", scope="litellm", **later))
            fleet.truth.append(counts)
            total = [total[0] + counts[0], total[1] + counts[1]]
        usage = (total[0], total[1]) if sums and draw(st.booleans()) else None
        fleet.spans.append(agent(root, usage, trace=root, start=100.0 * run, end=clock + 3))
    fleet.truth.sort()
    return fleet


@examples(150, deadline=None)
@given(fleets(), SEEDS, st.sampled_from(list(Encoding)))
def test_order_splitting_and_repeats_change_no_total(fleet: Fleet, random: Random, encoding: Encoding) -> None:
    """Each call counts once, however the spans are mixed, split into requests and sent again."""
    whole = normalise(sightings(fleet.spans, encoding))
    assert tokens(whole) == fleet.truth
    mixed = fleet.spans + random.sample(fleet.spans, k=random.randint(0, len(fleet.spans)))
    random.shuffle(mixed)
    pieces = []
    while mixed:
        size = random.randint(1, len(mixed))
        pieces += sightings(mixed[:size], encoding)
        del mixed[:size]
    assert [(call.event, call.session_id, call.agent) for call in normalise(pieces)] == [
        (call.event, call.session_id, call.agent) for call in whole
    ]


@examples(60, deadline=None)
@given(fleets())
def test_every_call_becomes_a_usage_event(fleet: Fleet) -> None:
    """Every call becomes a valid message, and no two calls share an identity."""
    found = normalise(sightings(fleet.spans))
    for call in found:
        batch = {"connection_id": "c", "client": call.client, "provider": call.provider, "session_id": call.session_id}
        UsageBatch.model_validate({**batch, "events": [call.event]})
    assert max(Counter(call.event["event_id"] for call in found).values(), default=1) == 1
