"""Turns a traces request into sightings: spans of model calls, possible sums of them, and spans that name their
session.

The result depends only on the body.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from tallystream.schemas.clients.attribution import attribution
from tallystream.schemas.clients.base import bounded, shown, text
from tallystream.schemas.clients.genai import spellings
from tallystream.schemas.clients.genai.counts import Counts, settle
from tallystream.schemas.clients.genai.rejected import kept, unknown_counts
from tallystream.schemas.clients.genai.sighting import Kind, Sighting
from tallystream.schemas.clients.genai.texts import complete
from tallystream.schemas.clients.logs import Rejected, RejectedRecords
from tallystream.schemas.clients.providers import provider_of
from tallystream.schemas.clients.witnesses import SPAN_BYTES, SPAN_NAMES, Witnesses
from tallystream.schemas.errors import InvalidBodyError, InvalidRecordError, Reason
from tallystream.schemas.money import MAX_USD, to_pico, to_usd
from tallystream.schemas.otlp import LIMITS, Encoding, Limits, json_spans, protobuf_spans
from tallystream.schemas.otlp.records import Attributes, Value
from tallystream.schemas.otlp.spans import BrokenSpan, Hint, Span
from tallystream.schemas.usage import MAX_SESSION_BYTES

_HINT = Hint(spellings.HINT, spellings.CONTEXT_HINT)
_WITNESS_HINT = Hint(
    re.compile(spellings.HINT.pattern + b"|" + SPAN_BYTES.pattern),
    re.compile(spellings.CONTEXT_HINT.pattern + "|" + SPAN_NAMES.pattern, re.MULTILINE),
)
MAX_NODES = 4096
"""Maximum number of spans per body that are kept only for their place in the tree. Further ones are treated as if they
were in another request."""


@dataclass(frozen=True, slots=True)
class SightingPack:
    """Sightings of one request that share an attribution."""

    attribution: dict[str, str]
    """Fields of `Attribution`; the user is still as the producer wrote it."""
    sightings: list[Sighting]


@dataclass(frozen=True, slots=True)
class SpansResult:
    """The contents of a traces body."""

    records: int
    packs: list[SightingPack] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def read_sightings(
    body: bytes, encoding: Encoding, limits: Limits = LIMITS, witnesses: Witnesses | None = None
) -> SpansResult:
    """Return the sightings of a traces request, in the order of the body.

    `witnesses` collects what spans say of usage that is counted from logs; None leaves them out.

    Raises:
        InvalidBodyError: it is not a traces request, or exceeds a limit. Then nothing in it counts.

    """
    read_spans = json_spans.read_spans if encoding is Encoding.JSON else protobuf_spans.read_spans
    spans = read_spans(body, _HINT if witnesses is None else _WITNESS_HINT, limits)
    rejected = RejectedRecords()
    found: list[tuple[dict[str, Value], Sighting]] = []
    above: dict[tuple[str, str], str] = {}
    undecodable = 0
    for span in spans.spans:
        if isinstance(span, BrokenSpan):
            undecodable += 1
            rejected.add(Rejected(Reason.UNDECODABLE, span.why, span.index, None, None, {}))
            continue
        if not span.is_identified:
            continue
        seen = None
        if span.attributes is None:
            pass
        elif _costed_by_logs(span, span.attributes):
            if witnesses is not None:
                witnesses.span(span, span.attributes)
        else:
            try:
                seen = read_span(span, span.attributes)
            except InvalidRecordError as verdict:
                rejected.add(_rejected(span, span.attributes, verdict.reason, verdict.message))
            else:
                if lost := unknown_counts(span.attributes):
                    why = f"a span of {bounded(span.scope) or 'no scope'} carries token counts under unknown names"
                    rejected.add(_rejected(span, span.attributes, Reason.UNRECOGNISED_USAGE, why, lost))
        if seen is not None:
            found.append((span.resource, seen))
        elif len(above) < MAX_NODES:
            above[span.trace_id, span.span_id] = span.parent_id
    if undecodable and undecodable == spans.records:
        raise InvalidBodyError(f"the body is not a valid OTLP request: {rejected.kept[0].detail}")
    return SpansResult(spans.records, list(_packs(found, above)), rejected.kept)


def read_span(span: Span, attributes: Attributes) -> Sighting | None:
    """Return the sighting of one span, None when the span is irrelevant.

    Raises:
        InvalidRecordError: it has usage that cannot be counted.

    """
    get = attributes.get
    session = _session(attributes)
    agent = _first(attributes, spellings.AGENT)
    counts = _counts(span, attributes)
    usage = bool(counts.input or counts.output)
    kind: Kind = _kind(attributes) or ("sum" if usage else "node")
    if kind == "node" and session is None and agent is None and not _is_step(attributes):
        return None
    if usage and kind != "node" and not span.end_ns:
        raise InvalidRecordError(Reason.NO_TIME, "the span has no endTimeUnixNano")
    if span.end_ns >= 2**63 or span.start_ns >= 2**63:
        raise InvalidRecordError(Reason.NO_TIME, "the span's time does not fit into 63 bits")
    return Sighting(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        kind=kind,
        start_ns=span.start_ns or span.end_ns,
        end_ns=max(span.start_ns, span.end_ns),
        scope=bounded(span.scope),
        process=_process(span.resource),
        client=_client(span),
        session=session,
        parent_session=_first(attributes, spellings.PARENT_SESSION),
        agent=agent,
        response_id=_response_id(attributes) if kind == "call" else None,
        response_model=_first(attributes, spellings.RESPONSE_MODEL, spellings.NOT_A_MODEL),
        request_model=_first(attributes, spellings.REQUEST_MODEL, spellings.NOT_A_MODEL),
        gateway_model=_first(attributes, spellings.GATEWAY_MODEL),
        provider=_first(attributes, spellings.PROVIDER),
        input=counts.input,
        output=counts.output,
        cache_read=counts.cache_read,
        cache_write=counts.cache_write,
        cache_write_1h=counts.cache_write_1h,
        reasoning=counts.reasoning,
        finished=any(get(name) is not None for name in spellings.FINISHED),
        failed=span.failed,
        tier=_first(attributes, spellings.TIER),
        cost_usd=_cost(attributes),
        user=_first(attributes, spellings.USER),
        service=text(span.resource.get("service.name")),
    )


def _kind(attributes: Attributes) -> Kind | None:
    """Return the kind of the span, None when it is unknown."""
    operation = attributes.get(spellings.AI_SDK_OPERATION)
    if isinstance(operation, str):
        return "call" if operation.endswith(spellings.AI_SDK_LEAVES) else None
    kind = attributes.get(spellings.OPENINFERENCE_KIND)
    if isinstance(kind, str):
        return "call" if kind.upper() in spellings.OPENINFERENCE_LEAVES else None
    name = attributes.get(spellings.OPERATION)
    if isinstance(name, str):
        return "call" if name.lower() in spellings.LEAF_OPERATIONS else None
    for name, leaves in spellings.OTHER_LEAVES.items():
        if (value := attributes.get(name)) is not None:
            return "call" if leaves is None or _unquoted(value) in leaves else None
    return None


def _is_step(attributes: Attributes) -> bool:
    """Tell whether a span is a step of an agent, so that calls may be below it."""
    names = (spellings.OPERATION, spellings.OPENINFERENCE_KIND, spellings.AI_SDK_OPERATION)
    return any(attributes.get(name) is not None for name in names)


def _counts(span: Span, attributes: Attributes) -> Counts:
    """Return the counts in the convention of `Sighting`."""
    told = Counts(
        *(
            _count(attributes, names)
            for names in (
                spellings.INPUT,
                spellings.OUTPUT,
                spellings.CACHE_READ,
                spellings.CACHE_WRITE,
                spellings.REASONING,
                spellings.CACHE_WRITE_1H,
            )
        )
    )
    told, total = complete(told, _count(attributes, spellings.TOTAL), attributes)
    if told.input is None and told.output is None:
        return told
    model = _first(attributes, spellings.REQUEST_MODEL) or ""
    provider = _first(attributes, spellings.PROVIDER)
    settled = settle(
        told,
        total=total,
        adds_reasoning_twice=span.scope == spellings.ADK_SCOPE and "/" in model,
        counts_cached_beside=spellings.CACHED_BESIDE.match(span.scope) is not None
        or (span.scope == spellings.AGNO_SCOPE and provider in spellings.AGNO_CACHED_BESIDE),
        counts_reasoning_beside=spellings.REASONING_BESIDE.match(span.scope) is not None,
        hides_reasoning=total is not None
        and told.reasoning is None
        and provider_of(provider, model)[0] == spellings.GEMINI,
    )
    hour = settled.cache_write_1h
    return settled if hour is None else settled._replace(cache_write_1h=min(hour, settled.cache_write or 0) or None)


def _count(attributes: Attributes, names: Iterable[str]) -> int | None:
    """Return the first count that is present.

    Raises:
        InvalidRecordError: it is not a whole number from 0 to 2**53 - 1. Floats with a whole value are accepted,
            because some exporters convert integers to floats.

    """
    for name in names:
        value = attributes.get(name)
        if value is None or value == b"":
            continue
        if type(value) is float and math.isfinite(value) and value == int(value):
            value = int(value)
        if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 20:
            value = int(value)
        if type(value) is not int or not 0 <= value < 2**53:
            raise InvalidRecordError(
                Reason.INVALID_COUNTS, f"{name} is {shown(value)}, not a whole number from 0 to 2**53 - 1"
            )
        return value
    return None


def _first(attributes: Attributes, names: Iterable[str], placeholders: Collection[str] = ()) -> str | None:
    for name in names:
        if (found := text(_unquoted(attributes.get(name)))) and found not in placeholders:
            return found
    return None


def _unquoted(value: Value) -> Value:
    """Return a text without the quotes of JSON, in which MLflow writes every attribute."""
    if isinstance(value, str) and len(value) > 2 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


def _session(attributes: Attributes) -> str | None:
    """Return the session a span names. An OpenAI response id is not accepted: some producers put the previous
    response's id there.
    """
    for name in spellings.SESSION:
        value = attributes.get(name)
        if isinstance(value, str) and (found := value.strip()) and not found.startswith("resp_"):
            return None if len(found.encode()) > MAX_SESSION_BYTES else found
    if attributes.get(spellings.LOGFIRE_TRACE) and (found := text(attributes.get(spellings.LOGFIRE_GROUP)) or ""):
        return found
    given = attributes.get(spellings.LITELLM_METADATA)
    if isinstance(given, str) and (match := spellings.LITELLM_SESSION.search(given[:16384])):
        return bounded(match[1])
    return None


def _response_id(attributes: Attributes) -> str | None:
    if (found := _first(attributes, spellings.RESPONSE_ID)) is not None:
        return found
    shown_whole = next(
        (whole for name in spellings.RESPONSE_TEXTS if (whole := attributes.get(name)) is not None), None
    )
    if isinstance(shown_whole, str):
        for pattern in spellings.RESPONSE_ID_IN_TEXT:
            if match := pattern.search(shown_whole[: spellings.MAX_TEXT]):
                return bounded(match[1])
    return None


def _cost(attributes: Attributes) -> str | None:
    """Return the producer's own cost as a decimal string of dollars, None when it does not report one."""
    nano = attributes.get(spellings.NANO_CREDITS)
    if type(nano) is int and 0 < nano < 2**63:
        return to_usd(to_pico(Decimal(nano) / 10**11))
    for name in spellings.COST:
        value = attributes.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if math.isfinite(value) and 0 <= value < MAX_USD:
            return to_usd(to_pico(repr(value)))
    return None


def _process(resource: dict[str, Value]) -> str:
    """Return what identifies a process: its instance id, else all attributes that describe it."""
    instance = text(resource.get("service.instance.id"))
    names = ("service.name", "service.namespace", "host.name", "host.id", "process.pid")
    return instance or "|".join(text(resource.get(name)) or "" for name in names)


def _client(span: Span) -> str:
    service = text(span.resource.get("service.name")) or ""
    if service in spellings.SERVICES:
        return spellings.SERVICES[service]
    for scope, client in spellings.CLIENTS:
        if span.scope == scope or span.scope.startswith(f"{scope}."):
            return client
    return "genai"


def _costed_by_logs(span: Span, attributes: Attributes) -> bool:
    if any(attributes.get(name) is not None for name in spellings.COSTED_BY_LOGS_NAMES):
        return True
    service = span.resource.get("service.name")
    if isinstance(service, str) and (service in spellings.COSTED_BY_LOGS_SERVICES or not span.scope):
        return spellings.COSTED_BY_LOGS.match(service) is not None
    return spellings.COSTED_BY_LOGS.match(span.scope) is not None


def _rejected(
    span: Span, attributes: Attributes, reason: Reason, detail: str, counts: dict[str, Any] | None = None
) -> Rejected:
    return Rejected(
        reason,
        detail,
        span.index,
        _client(span),
        _session(attributes),
        kept(span, attributes) | (counts or {}),
        attribution(span.resource),
    )


def _packs(found: list[tuple[dict[str, Value], Sighting]], above: dict[tuple[str, str], str]) -> Iterable[SightingPack]:
    """Return the sightings by attribution, with parents replaced by the nearest ancestor that is a sighting of this
    body.
    """
    packs: dict[tuple[Any, ...], SightingPack] = {}
    whose: dict[int, dict[str, str]] = {}
    for resource, seen in found:
        parent, steps = seen.parent_id, 0
        while parent and (up := above.get((seen.trace_id, parent))) is not None and steps < MAX_NODES:
            parent, steps = up, steps + 1
        if parent != seen.parent_id:
            seen = replace(seen, parent_id=parent)
        named = whose.get(id(resource))
        if named is None:
            named = whose[id(resource)] = attribution(resource)
        key = tuple(named.items())
        pack = packs.get(key)
        if pack is None:
            pack = packs[key] = SightingPack(named, [])
        pack.sightings.append(seen)
    return packs.values()
