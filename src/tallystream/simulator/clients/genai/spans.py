"""How each framework writes the spans of a run: one function for each, after recordings of the real ones.

copilot      `chat`, and an `invoke_agent` above that repeats the sum of its calls under the same names
pydantic-ai  `chat`, and an `invoke_agent` with the sum under names of its own; a LiteLLM proxy in between reports
each call again, from another process, in another trace and request, with the same response id
langchain    spans without a response id; the Anthropic SDK below them reports each call again in a trace of its own
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tallystream.simulator.agent import ClientCounts
from tallystream.simulator.model import CANARY
from tallystream.simulator.signals import attributes

MS = 1_000_000


class Ids(NamedTuple):
    """Ids of a span; `parent` is empty for a root."""

    trace: str
    span: str
    parent: str = ""


class PlayedCall(NamedTuple):
    """One call of a model. Input as spans tell it includes what was cached and written."""

    model: str
    response_id: str
    counts: ClientCounts
    start_ns: int
    end_ns: int

    @property
    def input(self) -> int:
        """Input tokens, all of them."""
        counts = self.counts
        return counts.input_uncached + counts.cache_read + counts.cache_write_5m


@dataclass(frozen=True)
class SpanGroup:
    """Spans of one program and scope."""

    resource: tuple[tuple[str, str], ...]
    scope: str
    spans: Sequence[dict[str, Any]]


def body(groups: Sequence[SpanGroup]) -> tuple[dict[str, Any], int]:
    """Return a traces request as OTLP/JSON has it, and its number of spans."""
    resources = [
        {
            "resource": {"attributes": attributes(group.resource)},
            "scopeSpans": [{"scope": {"name": group.scope}, "spans": list(group.spans)}],
        }
        for group in groups
    ]
    return {"resourceSpans": resources}, sum(len(group.spans) for group in groups)


def span(
    name: str, ids: Ids, start_ns: int, end_ns: int, told: dict[str, Any], *, failed: bool = False
) -> dict[str, Any]:
    """Return a span."""
    made = {
        "traceId": ids.trace,
        "spanId": ids.span,
        "name": name,
        "kind": 3,
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(end_ns),
        "attributes": attributes((key, value) for key, value in told.items() if value is not None),
        "status": {"code": 2 if failed else 0},
    }
    return made | {"parentSpanId": ids.parent} if ids.parent else made


def chat(call: PlayedCall, ids: Ids, session: str, agent: str, *, provider: str, written: str) -> dict[str, Any]:
    """Return a `chat` span as the conventions have it; `written` is the producer's name for cache-written tokens."""
    counts = call.counts
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": call.model,
        "gen_ai.response.model": call.model,
        "gen_ai.response.id": call.response_id,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.conversation.id": session,
        "gen_ai.agent.name": agent,
        "gen_ai.usage.input_tokens": call.input,
        "gen_ai.usage.output_tokens": counts.output,
        "gen_ai.usage.cache_read.input_tokens": counts.cache_read or None,
        written: counts.cache_write_5m or None,
        "gen_ai.usage.reasoning.output_tokens": counts.reasoning or None,
        "gen_ai.input.messages": f'[{{"role": "user", "content": "{CANARY}"}}]',
    }
    return span(f"chat {call.model}", ids, call.start_ns, call.end_ns, told)


def failed_chat(model: str, ids: Ids, session: str, at_ns: int) -> dict[str, Any]:
    """Return a try that the provider refused: an error span without usage."""
    told = {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": model, "gen_ai.conversation.id": session,
        "error.type": "ModelCallError", "gen_ai.response.finish_reasons": ["error"],
    }  # fmt: skip
    return span(f"chat {model}", ids, at_ns, at_ns + MS, told, failed=True)


def run(calls: Sequence[PlayedCall], ids: Ids, session: str, agent: str, *, prefix: str) -> dict[str, Any]:
    """Return the span of a run, which repeats the sum of its calls under names that begin with `prefix`."""
    told = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": agent,
        "gen_ai.conversation.id": session,
        f"{prefix}.input_tokens": sum(call.input for call in calls),
        f"{prefix}.output_tokens": sum(call.counts.output for call in calls),
        f"{prefix}.cache_read.input_tokens": sum(call.counts.cache_read for call in calls),
    }
    return span(f"invoke_agent {agent}", ids, calls[0].start_ns - MS, calls[-1].end_ns + MS, told)


def gateway(call: PlayedCall, ids: Ids) -> dict[str, Any]:
    """Return what a LiteLLM proxy tells of a call: the alias that it was asked for, and the model that it asked."""
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "house-model",
        "gen_ai.response.model": "house-model",
        "litellm.provider.model": f"openai/{call.model}",
        "gen_ai.response.id": call.response_id,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": call.input,
        "gen_ai.usage.output_tokens": call.counts.output,
        "gen_ai.usage.prompt_tokens": call.input,
        "gen_ai.usage.completion_tokens": call.counts.output,
        "gen_ai.usage.cache_read.input_tokens": call.counts.cache_read or None,
    }
    return span("chat house-model", ids, call.start_ns, call.end_ns, told)


def openinference(call: PlayedCall, ids: Ids, session: str) -> dict[str, Any]:
    """Return a span of OpenInference's LangChain instrumentation, which names no response id."""
    counts = call.counts
    told = {
        "openinference.span.kind": "LLM",
        "llm.model_name": call.model,
        "llm.provider": "anthropic",
        "llm.token_count.prompt": call.input,
        "llm.token_count.completion": counts.output,
        "llm.token_count.total": call.input + counts.output,
        "llm.token_count.prompt_details.cache_read": counts.cache_read,
        "llm.token_count.prompt_details.cache_write": counts.cache_write_5m,
        "llm.finish_reason": "end_turn",
        "session.id": session,
        "input.value": CANARY,
    }
    return span("ChatAnthropic", ids, call.start_ns, call.end_ns, told)


def chain(ids: Ids, session: str, start_ns: int, end_ns: int) -> dict[str, Any]:
    """Return the span of a LangChain chain, which tells no usage."""
    return span("LangGraph", ids, start_ns, end_ns, {"openinference.span.kind": "CHAIN", "session.id": session})


def sdk(call: PlayedCall, ids: Ids) -> dict[str, Any]:
    """Return what the Anthropic SDK itself tells of a call."""
    counts = call.counts
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": call.model,
        "gen_ai.response.model": call.model,
        "gen_ai.response.id": call.response_id,
        "gen_ai.response.finish_reasons": ["end_turn"],
        "gen_ai.usage.input_tokens": call.input,
        "gen_ai.usage.output_tokens": counts.output,
        "gen_ai.usage.cache_read.input_tokens": counts.cache_read,
        "gen_ai.usage.cache_write.input_tokens": counts.cache_write_5m,
    }
    return span("anthropic.messages.create", ids, call.start_ns + MS, call.end_ns, told)
