"""Reading a span: all names of counts, which counts include others, and which spans are not calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.otlp_spans import Attribute, MadeSpan, chat, encode, read, read_body, sightings

from tallystream.schemas.clients.genai import Sighting, normalise, spellings
from tallystream.schemas.clients.genai.counts import Counts, settle
from tallystream.schemas.clients.logs import MOST_REJECTED
from tallystream.schemas.errors import InvalidBodyError, Reason
from tallystream.schemas.otlp import Encoding

both_encodings = pytest.mark.parametrize("encoding", list(Encoding))


def one(span: MadeSpan, encoding: Encoding = Encoding.PROTOBUF) -> Sighting:
    """Return the single sighting of a request with one span."""
    (seen,) = sightings([span], encoding)
    return seen


@both_encodings
def test_span_is_read_alike_in_both_encodings(encoding: Encoding) -> None:
    """Ids, times, counts, names and attribution are equal for protobuf and JSON."""
    span = chat(
        "c",
        (1200, 95),
        parent="p",
        attributes={
            "gen_ai.usage.cache_read.input_tokens": 500,
            "gen_ai.response.id": "chatcmpl-0123456789abcdef",
            "gen_ai.conversation.id": "conversation-1",
            "gen_ai.agent.name": "researcher",
        },
    )
    result = read([span], encoding)
    (pack,) = result.packs
    assert pack.attribution == {"team": "payments"}
    (seen,) = pack.sightings
    assert (seen.trace_id, seen.span_id, seen.parent_id) == tuple(part.hex() for part in span.ids)
    assert (seen.start_ns, seen.end_ns) == span.times
    assert (seen.kind, seen.input, seen.output, seen.cache_read, seen.finished) == ("call", 1200, 95, 500, True)
    assert (seen.session, seen.agent, seen.client) == ("conversation-1", "researcher", "pydantic-ai")
    assert result.records == 1


@pytest.mark.parametrize("meaning", ["INPUT", "OUTPUT", "CACHE_READ", "CACHE_WRITE", "REASONING"])
def test_every_spelling_of_a_count_is_read(meaning: str) -> None:
    """A count is read under every name that producers use for it."""
    for name in getattr(spellings, meaning):
        span = MadeSpan("c", {"gen_ai.operation.name": "chat", name: 7, "gen_ai.usage.total_tokens": 7})
        assert getattr(one(span), meaning.lower()) == 7, name


@pytest.mark.parametrize("name", spellings.SESSION)
def test_every_spelling_of_a_session_is_read(name: str) -> None:
    """A session is read under every name that producers use for it."""
    assert one(chat("c", attributes={name: "s-1"})).session == "s-1"


def test_response_id_is_not_used_as_session() -> None:
    """Some producers put the id of the previous response, which changes with every turn, into the conversation."""
    assert one(chat("c", attributes={"gen_ai.conversation.id": "resp_0123456789abcdef"})).session is None


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"gen_ai.operation.name": "chat"}, "call"),
        ({"gen_ai.operation.name": "embeddings"}, "call"),
        ({"gen_ai.operation.name": "embed"}, "call"),
        ({"gen_ai.operation.name": "openai.responses.create"}, "call"),
        ({"gen_ai.operation.name": "generate_content"}, "call"),
        ({"gen_ai.operation.name": "acompletion"}, "call"),
        ({"gen_ai.operation.name": "invoke_agent"}, "sum"),
        ({"gen_ai.operation.name": "execute_event_loop_cycle"}, "sum"),
        ({}, "sum"),
        ({"ai.operationId": "ai.streamText.doStream"}, "call"),
        ({"ai.operationId": "ai.embedMany.doEmbed"}, "call"),
        ({"ai.operationId": "ai.streamText"}, "sum"),
        ({"openinference.span.kind": "LLM"}, "call"),
        ({"openinference.span.kind": "EMBEDDING"}, "call"),
        ({"openinference.span.kind": "AGENT"}, "sum"),
        ({"llm.request.type": "chat"}, "call"),
    ],
)
def test_only_spans_of_a_single_request_are_calls(attributes: dict[str, str], kind: str) -> None:
    """A span with usage that may cover several requests is a sum."""
    assert one(MadeSpan("c", {**attributes, "gen_ai.usage.input_tokens": 5})).kind == kind


@pytest.mark.parametrize(
    ("counts", "total", "settled"),
    [
        (Counts(100, 20, 60, 10, 5), None, Counts(100, 20, 60, 10, 5)),
        (Counts(30, 20, 60, 10, 5), None, Counts(100, 20, 60, 10, 5)),
        (Counts(80, 20, 60, 10, 5), 170, Counts(150, 20, 60, 10, 5)),
        (Counts(80, 20, 60, 10, 5), 100, Counts(80, 20, 60, 10, 5)),
        (Counts(10, 3, None, None, 7), None, Counts(10, 10, None, None, 7)),
        (Counts(10, 9, None, None, 7), 26, Counts(10, 16, None, None, 7)),
        (Counts(10, 9, None, None, 7), 19, Counts(10, 9, None, None, 7)),
        (Counts(0, 0, 60, 0, 0), None, Counts(60, 0, 60, 0, 0)),
        (Counts(30, 20, 60, 10, 5), 125, Counts(100, 25, 60, 10, 5)),
    ],
)
def test_arithmetic_shows_which_counts_include_others(counts: Counts, total: int | None, settled: Counts) -> None:
    """No part exceeds its total, and a producer's own total shows which counts it includes."""
    assert settle(counts, total=total) == settled


@given(*(st.integers(0, 10**6) for _ in range(4)))
def test_parts_never_exceed_their_totals(fresh: int, read: int, write: int, output: int) -> None:
    """The counts are the same whether parts are included or separate, as the total shows."""
    whole = fresh + read + write
    inside = settle(Counts(whole, output, read, write, None), total=whole + output)
    beside = settle(Counts(fresh, output, read, write, None), total=whole + output)
    assert inside == beside == Counts(whole, output, read, write, None)


@pytest.mark.parametrize(
    "scope",
    [
        "opentelemetry.instrumentation.bedrock",
        "opentelemetry.instrumentation.botocore.bedrock-runtime",
        "openlit.instrumentation.anthropic",
        "openlit.instrumentation.bedrock",
    ],
)
def test_cached_tokens_are_counted_beside_an_input_without_them(scope: str) -> None:
    """These producers pass on the provider's input, which leaves out cached tokens, and a total without them."""
    attributes: dict[str, Attribute] = {
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.cache_creation.input_tokens": 10,
        "gen_ai.usage.total_tokens": 110,
    }
    seen = one(chat("c", (100, 10), scope=scope, attributes=attributes))
    assert (seen.input, seen.cache_read, seen.cache_write) == (170, 60, 10)


@pytest.mark.parametrize(("provider", "whole"), [("Anthropic", 170), ("AwsBedrock", 170), ("OpenAI", 100)])
def test_agno_counts_cached_tokens_as_each_provider_does(provider: str, whole: int) -> None:
    """It passes on the counts of each API: OpenAI's input includes cached tokens, Anthropic's and Bedrock's do not."""
    attributes: dict[str, Attribute] = {
        "openinference.span.kind": "LLM",
        "llm.provider": provider,
        "llm.model_name": "claude-sonnet-4-5",
        "llm.token_count.prompt": 100,
        "llm.token_count.completion": 10,
        "llm.token_count.prompt_details.cache_read": 60,
        "llm.token_count.prompt_details.cache_write": 10,
    }
    seen = one(MadeSpan("c", attributes, scope="openinference.instrumentation.agno"))
    assert (seen.input, seen.cache_read, seen.cache_write) == (whole, 60, 10)


def test_reasoning_is_counted_beside_an_output_without_it() -> None:
    """OpenLIT passes on Gemini's output, which leaves out thoughts, and tells no total."""
    attributes: dict[str, Attribute] = {"gen_ai.usage.reasoning_tokens": 4}
    seen = one(chat("c", (100, 10), scope="openlit.instrumentation.google_ai_studio", attributes=attributes))
    assert (seen.output, seen.reasoning) == (14, 4)


def test_thoughts_that_only_geminis_total_tells_are_output() -> None:
    """Gemini's output is without thoughts, and some producers report only its total beside it."""
    attributes: dict[str, Attribute] = {"gen_ai.usage.total_tokens": 124, "gen_ai.provider.name": "gcp.gen_ai"}
    seen = one(chat("c", (100, 10), attributes=attributes))
    assert (seen.output, seen.reasoning) == (24, 14)
    other = one(chat("c", (100, 10), attributes=attributes | {"gen_ai.provider.name": "openai"}))
    assert (other.output, other.reasoning) == (10, None)


def test_placeholder_is_not_a_model() -> None:
    """OpenLLMetry writes `unknown` for some of LangChain's models, and has the name among LangChain's metadata."""
    attributes: dict[str, Attribute] = {
        "gen_ai.request.model": "unknown",
        "gen_ai.response.model": "unknown",
        "traceloop.association.properties.ls_model_name": "llama3.2",
    }
    seen = one(chat("c", attributes=attributes))
    assert (seen.response_model, seen.request_model) == (None, "llama3.2")


def test_lifetime_of_cache_writes_is_read() -> None:
    """Anthropic's own library tells how many of the written tokens live for an hour, which costs more."""
    name = "anthropic.usage.cache_creation.ephemeral_1h_input_tokens"
    attributes: dict[str, Attribute] = {"gen_ai.usage.cache_write.input_tokens": 30, name: 20}
    (call,) = normalise([one(chat("c", (100, 10), scope="com.anthropic.sdk.python", attributes=attributes))])
    assert (call.event["cache_write_5m"], call.event["cache_write_1h"]) == (10, 20)


def test_adk_over_litellm_counts_reasoning_once() -> None:
    """For models served through LiteLLM, it adds the reasoning to an output that already includes it."""
    tokens: dict[str, Attribute] = {"gen_ai.usage.reasoning.output_tokens": 20}
    through = chat("c", (100, 95), scope="gcp.vertex.agent", attributes={**tokens, "gen_ai.request.model": "openai/m"})
    direct = chat("c", (100, 95), scope="gcp.vertex.agent", attributes={**tokens, "gen_ai.request.model": "gemini-m"})
    assert (one(through).output, one(direct).output) == (75, 95)


def test_details_in_litellms_json_attribute_are_read() -> None:
    """Cached and reasoning tokens and the session are read from a dict's repr without evaluating it."""
    span = chat(
        "c",
        (100, 50),
        scope="litellm",
        attributes={
            "gen_ai.operation.name": "acompletion",
            "litellm.provider.model": "openai/gpt-5",
            "gen_ai.response.model": "smart",
            "metadata.usage_object": "{'prompt_tokens': 100, 'completion_tokens_details': {'reasoning_tokens': 20},"
            " 'prompt_tokens_details': {'cached_tokens': 40, 'cache_creation_tokens': 10}}",
            "metadata.requester_metadata": "{'session_id': 'caller-1', 'headers': {'host': 'h'}}",
            "gen_ai.cost.total_cost": 0.00025,
        },
    )
    seen = one(span)
    assert (seen.cache_read, seen.cache_write, seen.reasoning, seen.session) == (40, 10, 20, "caller-1")
    (call,) = normalise([seen])
    assert (call.provider, call.event["model"], call.event["reported_cost_usd"]) == ("openai", "gpt-5", "0.00025")


def test_cache_tokens_in_the_ai_sdk_5_metadata_are_read() -> None:
    """Its input is the uncached part; Anthropic's own counts are in a JSON string."""
    metadata = (
        '{"anthropic":{"usage":{"input_tokens":12,"cache_creation_input_tokens":30,"cache_read_input_tokens":58,'
        '"output_tokens":9,"cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":10}}}}'
    )
    attributes: dict[str, Attribute] = {"ai.operationId": "ai.generateText.doGenerate"}
    attributes["ai.response.providerMetadata"] = metadata
    seen = one(chat("c", (12, 9), scope="ai", attributes=attributes))
    assert (seen.input, seen.cache_read, seen.cache_write, seen.cache_write_1h) == (100, 58, 30, 10)
    whole = one(chat("c", (100, 9), scope="ai", attributes=attributes))
    assert (whole.input, whole.cache_read) == (100, 58)
    other = one(chat("c", (77, 9), scope="ai", attributes=attributes))
    assert (other.input, other.cache_read) == (77, None), "the metadata is of another call"


@pytest.mark.parametrize(
    ("shown", "response_id"),
    [
        ('{"id":"chatcmpl-0123456789abcdef","object":"chat.completion"}', "chatcmpl-0123456789abcdef"),
        ('{"id":"resp_0123456789ab","output":[{"id":"msg_0123456789ab"}]}', "resp_0123456789ab"),
        ('{"id":"msg_0123456789ab","content":[{"text":"an id: \\"id\\":\\"resp_x\\""}]}', "msg_0123456789ab"),
        ("no id", None),
    ],
)
def test_response_id_in_openinferences_output_is_read(shown: str, response_id: str | None) -> None:
    """It does not have an attribute for the response id."""
    attributes: dict[str, Attribute] = {"openinference.span.kind": "LLM", "llm.token_count.prompt": 5}
    assert one(MadeSpan("c", attributes | {"output.value": shown})).response_id == response_id


@pytest.mark.parametrize(
    ("scope", "service"),
    [
        ("codex_exec", "codex_exec"),
        ("", "codex_exec"),
        ("com.anthropic.claude_code.tracing", "x"),
        ("gemini-cli", "x"),
        ("qwen-code", "x"),
        ("@opentelemetry/instrumentation-http", "qwen-code"),
    ],
)
def test_spans_of_clients_priced_by_logs_are_ignored(scope: str, service: str) -> None:
    """Codex, Claude Code, Gemini CLI and Qwen Code report the same usage in logs, which are counted instead."""
    assert not sightings([chat("c", scope=scope, resource={"service.name": service})])


def test_spans_of_codex_are_known_whatever_its_originator_is() -> None:
    """A program that embeds Codex chooses the originator, which is both its scope and its service."""
    embedded = {"scope": "My Editor", "resource": {"service.name": "My Editor"}}
    usage: dict[str, Attribute] = {"gen_ai.usage.input_tokens": 100, "codex.usage.total_tokens": 110}
    assert not sightings([MadeSpan("handle_responses", usage, **embedded)])  # type: ignore[arg-type]


def test_program_with_a_name_like_a_client_is_counted() -> None:
    """Its spans are those of its library, and it sends no logs of a client."""
    assert sightings([chat("c", scope="pydantic-ai", resource={"service.name": "codex-reviewer"})])


@pytest.mark.parametrize("value", [-1, 2**53, 1.5, "many", True])
def test_invalid_count_becomes_a_dead_letter_without_affecting_others(value: float | str) -> None:
    """An invalid span is kept with the reason, and the other spans count."""
    result = read([chat("bad", attributes={"gen_ai.usage.input_tokens": value}), chat("good")])
    (refused,) = result.rejected
    assert refused.reason is Reason.INVALID_COUNTS
    assert "gen_ai.usage.input_tokens" in refused.detail
    assert [seen.span_id for pack in result.packs for seen in pack.sightings] == [chat("good").ids[1].hex()]


@both_encodings
def test_counts_under_unknown_names_become_a_dead_letter(encoding: Encoding) -> None:
    """A producer with names of its own is reported instead of read as one without usage."""
    unknown: dict[str, Attribute] = {"request.tokens_in": 70, "request.tokens": "90", "max_tokens": 500, "text": "hi"}
    result = read([MadeSpan("new", unknown, scope="new.sdk"), chat("good")], encoding)
    (lost,) = result.rejected
    assert (lost.reason, lost.index) == (Reason.UNRECOGNISED_USAGE, 0)
    assert "new.sdk" in lost.detail
    assert {name: value for name, value in lost.record.items() if name in unknown} == {
        "request.tokens_in": 70,
        "request.tokens": "90",
    }
    assert [len(pack.sightings) for pack in result.packs] == [1]


def test_other_counts_beside_known_ones_are_no_dead_letter() -> None:
    """Steps and runs repeat details of the calls below them."""
    step: dict[str, Attribute] = {"gen_ai.usage.cache_read.input_tokens": 0, "step.uncached_tokens": 70}
    assert not read([MadeSpan("step", step), chat("good")]).rejected
    other: dict[str, Attribute] = {"auth.refresh_tokens": 3, "login_tokens": 1}
    assert not read([MadeSpan("login", other), chat("good")]).rejected, "not a request's"


@pytest.mark.parametrize("wrong", [{"request.output_tokens": 70}, {"gen_ai.usage.input_tokens": -1}])
def test_body_of_nothing_but_uncountable_spans_is_accepted(wrong: dict[str, Attribute]) -> None:
    """The request is valid, so each of its spans is kept for itself, and the client is told nothing else."""
    assert len(read([chat("c", None, attributes=wrong), chat("d", None, attributes=wrong)]).rejected) == 2


def test_dead_letters_of_spans_are_bounded() -> None:
    """A sender cannot create an unlimited number: further ones are counted in the last of their reason."""
    spans = [chat(f"c{n}", attributes={"gen_ai.usage.input_tokens": -1}) for n in range(MOST_REJECTED + 5)]
    found = read(spans).rejected
    assert (len(found), found[-1].folded) == (MOST_REJECTED, 5)


def test_whole_floats_are_accepted_as_counts() -> None:
    """Some exporters send all numbers as floats."""
    assert one(chat("c", attributes={"gen_ai.usage.input_tokens": 12.0})).input == 12


def test_unrelated_spans_only_connect_others_in_the_tree() -> None:
    """A call below a web server's span becomes a child of the agent above that span."""
    web = MadeSpan("web", {"http.route": "/chat"}, parent="agent", scope="fastapi")
    agent = MadeSpan("agent", {"gen_ai.operation.name": "invoke_agent", "session.id": "s"})
    seen = sightings([chat("c", parent="web"), web, agent])
    assert [(one.kind, one.parent_id) for one in seen] == [("call", agent.ids[1].hex()), ("node", "")]


def test_spans_keep_no_content() -> None:
    """The spans contain prompts, answers and tool content; the sightings must not."""
    canary = "canary-of-content"
    attributes = dict.fromkeys(
        (
            "gen_ai.input.messages",
            "gen_ai.output.messages",
            "output.value",
            "input.value",
            "ai.prompt",
            "gen_ai.tool.call.arguments",
        ),
        f'{{"text":"{canary}"}}',
    )
    result = read([chat("c", attributes={**attributes}), chat("bad", (1, 1), attributes={"ai.usage.tokens": "x"})])
    assert canary not in repr(result)


@both_encodings
def test_body_of_another_signal_is_refused(encoding: Encoding) -> None:
    """A body that is not a traces request is an error, and not an empty request."""
    with pytest.raises(InvalidBodyError):
        read_body(b'{"resourceLogs":[]}' if encoding is Encoding.JSON else b"\xff\xff", encoding)


@given(st.data())
def test_sighting_survives_encoding(data: st.DataObject) -> None:
    """A sighting is read back from the topic unchanged."""
    counts = st.none() | st.integers(0, 2**53 - 1)
    texts = st.none() | st.text(max_size=20)
    seen = Sighting(
        trace_id="0" * 32,
        span_id="1" * 16,
        kind=data.draw(st.sampled_from(["call", "sum", "node"])),
        parent_id=data.draw(st.sampled_from(["", "2" * 16])),
        session=data.draw(texts),
        response_id=data.draw(texts),
        input=data.draw(counts),
        output=data.draw(counts),
        finished=data.draw(st.booleans()),
    )
    assert Sighting.from_wire(seen.to_wire()) == seen


def test_request_without_sightings_gives_no_message() -> None:
    """An empty request succeeds."""
    for encoding in Encoding:
        body = b"{}" if encoding is Encoding.JSON else encode([], encoding)
        assert read_body(body, encoding).records == 0
