"""Counts that producers write only into a text: JSON, or the repr of a Python dict. Nothing else of a text is kept.

Sources, all read on telemetry of the real programs: LiteLLM's first exporter (`metadata.usage_object`), Logfire
(`gen_ai.usage.raw` and `usage`), LangSmith (`langsmith.metadata.usage_metadata`, with LangChain's names), Langfuse
(`langfuse.observation.usage_details`, where all counts are, under the provider's names or its own), MLflow
(`mlflow.chat.tokenUsage`, where all counts are), and the Vercel AI SDK (`ai.response.providerMetadata`, with a member
for the provider):

    openai      version 4: cachedPromptTokens, reasoningTokens
    anthropic   version 4: cacheReadInputTokens, cacheCreationInputTokens beside an input that does not include them;
                later: `usage`, Anthropic's own, beside an input that includes them (7) or not (5)
    bedrock     `usage`: cacheReadInputTokens, cacheWriteInputTokens
    google      `usageMetadata`, Gemini's own, beside an output that does not include thoughts (up to 5)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import orjson

from tallystream.schemas.clients.genai.counts import Counts
from tallystream.schemas.otlp.records import Attributes, Value

MAX_TEXT: Final = 1 << 16
"""Maximum number of characters of a text that is read; usage takes some hundred."""
USAGE_TEXTS: Final = ("gen_ai.usage.raw", "metadata.usage_object", "usage", "langsmith.metadata.usage_metadata")
ALL_COUNTS: Final = ("langfuse.observation.usage_details", "mlflow.chat.tokenUsage")
PROVIDER_METADATA: Final = "ai.response.providerMetadata"
DETAILED: Final = "ai.usage.inputTokenDetails.noCacheTokens"
"""Sent by versions of the AI SDK whose input includes cached tokens for every provider."""

_INPUT: Final = ("input", "input_tokens", "prompt_tokens", "promptTokens", "prompt_token_count")
_OUTPUT: Final = ("output", "output_tokens", "completion_tokens", "completionTokens", "candidates_token_count")
_CACHE_READ: Final = (
    "cached_tokens",
    "cache_read_input_tokens",
    "cachedPromptTokens",
    "cachedContentTokenCount",
    "cached_content_token_count",
    "input_cached_tokens",
    "input_cache_read",
    "cache_read",
)
_CACHE_WRITE: Final = (
    "cache_write_tokens",
    "cache_creation_tokens",
    "cache_creation_input_tokens",
    "input_cache_creation",
    "cache_creation",
)
_HOUR: Final = ("ephemeral_1h_input_tokens",)
_LIFETIMES: Final = ("ephemeral_5m_input_tokens", *_HOUR)
"""Parts of the cache writes. LangChain reports a whole of 0 beside them."""
_REASONING: Final = (
    "reasoning_tokens",
    "reasoningTokens",
    "thoughtsTokenCount",
    "thoughts_token_count",
    "output_reasoning_tokens",
    "output_reasoning",
    "reasoning",
)
_TOTAL: Final = ("total", "total_tokens", "totalTokens", "total_token_count")
_PAIR: Final = re.compile(r"'(\w{1,40})': (\d{1,16})\b")
_MOST: Final = 2**53


def complete(counts: Counts, total: int | None, attributes: Attributes) -> tuple[Counts, int | None]:
    """Return counts and total with those that only a text tells; what an attribute tells is kept.

    Texts that cannot be read, or that tell of another call, change nothing.
    """
    if counts.input is None:
        if not (text := next((found for name in ALL_COUNTS if (found := _short(attributes.get(name)))), "")):
            return counts, total
        told = _members(text)
        counts = _filled(counts._replace(input=_told(told, _INPUT), output=_told(told, _OUTPUT)), told)
        total = _told(told, _TOTAL)
    for name in USAGE_TEXTS:
        if text := _short(attributes.get(name)):
            counts = _filled(counts, _members(text))
    if counts.input is not None and (text := _short(attributes.get(PROVIDER_METADATA))):
        counts = _by_provider(counts, _json(text), detailed=attributes.get(DETAILED) is not None)
    return counts, total


def _short(value: Value) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_TEXT else ""


def _told(told: Mapping[str, int], names: Iterable[str]) -> int | None:
    return max((told[name] for name in names if name in told), default=None)


def _written(told: Mapping[str, int]) -> int | None:
    whole, parts = _told(told, _CACHE_WRITE), [told[name] for name in _LIFETIMES if name in told]
    return max(whole or 0, sum(parts)) if parts else whole


def _filled(counts: Counts, told: Mapping[str, int]) -> Counts:
    return counts._replace(
        cache_read=_told(told, _CACHE_READ) if counts.cache_read is None else counts.cache_read,
        cache_write=_written(told) if counts.cache_write is None else counts.cache_write,
        cache_write_1h=_told(told, _HOUR) if counts.cache_write_1h is None else counts.cache_write_1h,
        reasoning=_told(told, _REASONING) if counts.reasoning is None else counts.reasoning,
    )


def _by_provider(counts: Counts, metadata: Mapping[str, object], *, detailed: bool) -> Counts:
    """Return the counts with what the AI SDK passes on from the provider."""
    told = dict(_numbers(metadata.get("openai")))
    if told:
        return _filled(counts, told)
    told = dict(_numbers(metadata.get("google")))
    if told:
        counts = _filled(counts, told)
        beside = counts.output is not None and counts.output == told.get("candidatesTokenCount")
        return counts._replace(output=(counts.output or 0) + (counts.reasoning or 0)) if beside else counts
    told = dict(_numbers(metadata.get("bedrock")))
    if told and not detailed:
        return _beside(counts, told.get("cacheReadInputTokens", 0), told.get("cacheWriteInputTokens", 0), 0)
    return _anthropic(counts, metadata.get("anthropic"))


def _anthropic(counts: Counts, metadata: object) -> Counts:
    told = dict(_numbers(metadata))
    fresh = told.get("input_tokens")
    if fresh is None:
        read, written = told.get("cacheReadInputTokens", 0), told.get("cacheCreationInputTokens", 0)
        return _beside(counts, read, written, 0) if read or written else counts
    read, written = told.get("cache_read_input_tokens", 0), told.get("cache_creation_input_tokens", 0)
    if counts.input not in (fresh, fresh + read + written):
        return counts  # the usage of another call, such as the last of several steps
    return _beside(counts._replace(input=fresh), read, written, told.get("ephemeral_1h_input_tokens", 0))


def _beside(counts: Counts, read: int, written: int, hour: int) -> Counts:
    """Return the counts with these cached tokens, which the input does not include yet."""
    return counts._replace(
        input=(counts.input or 0) + read + written, cache_read=read, cache_write=written, cache_write_1h=hour or None
    )


def _members(text: str) -> dict[str, int]:
    found = _json(text)
    return dict(_numbers(found) if found else ((name, int(count)) for name, count in _PAIR.findall(text)))


def _json(text: str) -> Mapping[str, object]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _numbers(value: object, depth: int = 3) -> Iterator[tuple[str, int]]:
    """Yield the counts in an object and in those inside it."""
    if not isinstance(value, dict) or not depth:
        return
    for name, member in value.items():
        if type(member) is int and 0 <= member < _MOST:
            yield name, member
        elif type(member) is dict:
            yield from _numbers(member, depth - 1)
