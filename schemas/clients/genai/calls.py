"""Builds a call from its sightings: the innermost sighting's counts, gaps filled from the others, and the owner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tallystream.schemas.clients.base import bounded, identity
from tallystream.schemas.clients.genai import spellings
from tallystream.schemas.clients.genai.join import Group, is_part, join_calls
from tallystream.schemas.clients.genai.sighting import Sighting
from tallystream.schemas.clients.genai.tree import Key, Tree
from tallystream.schemas.clients.providers import provider_of
from tallystream.schemas.clients.request_ids import unique_id
from tallystream.schemas.usage import MAX_SEEN_BY


@dataclass(frozen=True, slots=True)
class Call:
    """One billed model response."""

    client: str
    provider: str
    session_id: str
    agent: str | None
    user: str | None
    event: dict[str, Any]
    """A UsageEvent as a plain dict, without None values."""
    members: Group
    """All sightings of the call."""
    owner: Sighting
    """The outermost sighting: its process asked for the call."""


def normalise(sightings: Iterable[Sighting]) -> list[Call]:
    """Return the calls of a complete set of sightings; neither order nor repetition changes the result."""
    tree = Tree(one for _, one in sorted((repr(seen), seen) for seen in sightings))
    groups = [group for group in join_calls(tree) if any(seen.has_usage for seen in group)]
    counted = {seen.key for group in groups for seen in group}
    calls = [call_of(tree, group) for group in groups]
    calls += [call_of(tree, (seen,)) for seen in unexplained_sums(tree, counted)]
    return sorted(calls, key=lambda call: (call.event["occurred_at"], call.event["event_id"]))


def unexplained_sums(tree: Tree, counted: Iterable[Key]) -> list[Sighting]:
    """Return the sums whose calls no span below reports; of several nested sums, the outermost.

    A sum counts only when that is certain, so not in a trace where a call is disconnected from its root.
    """
    explained: set[Key] = set()
    astray: set[str] = set()
    for key in counted:
        seen = tree.by_key.get(key)
        if seen is None:
            continue
        explained.add(key)
        explained.update(up.key for up in tree.above(seen))
        if not tree.is_rooted(seen):
            astray.add(seen.trace_id)
    found = []
    for key, seen in sorted(tree.by_key.items()):
        if seen.kind != "sum" or not seen.has_usage or key in explained or seen.trace_id in astray:
            continue
        if not any(up.kind == "sum" and up.has_usage and up.key not in explained for up in tree.above(seen)):
            found.append(seen)
    return found


def call_of(tree: Tree, group: Group) -> Call:
    """Return the call that a group of sightings saw; at least one of them has usage."""
    told = sorted(
        (seen for seen in group if seen.has_usage), key=lambda seen: (_is_partial(seen, group), *_preference(seen))
    )
    best = told[0]
    same = [seen for seen in told if seen.input == best.input]
    owner = max(group, key=lambda seen: (seen.end_ns - seen.start_ns, -seen.start_ns, seen.key))
    outward = sorted(group, key=lambda seen: (seen.start_ns - seen.end_ns, seen.start_ns, seen.key))
    read = _first(seen.cache_read for seen in same) or 0
    write = _first(seen.cache_write for seen in same) or 0
    hour = min(_first(seen.cache_write_1h for seen in same) or 0, write)
    output = best.output if best.output is not None else _first(seen.output for seen in same) or 0
    whole = best.input or 0
    if read + write > whole:
        read, write, hour = 0, 0, 0  # the value of another sighting, which cannot refer to these tokens
    provider, model = _named(told, group)
    response = next((unique for seen in group if (unique := unique_id(seen.response_id))), None)
    event: dict[str, Any] = {
        "event_id": identity("genai", response) if response else identity("genai", *min(seen.key for seen in group)),
        "occurred_at": best.end_ns,
        "model": model,
        "input_uncached": whole - read - write,
        "cache_read": read,
        "cache_write_5m": write - hour,
        "cache_write_1h": hour,
        "output": output,
        "reasoning": min(_first(seen.reasoning for seen in same) or 0, output),
        "tool": 0,
    }
    optional = {
        "service_tier": _tier(_first(seen.tier for seen in told)),
        "reported_cost_usd": _first(seen.cost_usd for seen in told),
        "basis": "aggregate" if best.kind == "sum" else None,
    }
    event |= {name: value for name, value in optional.items() if value is not None}
    if len(group) > 1:
        event["seen_by"] = sorted({seen.scope for seen in group})[:MAX_SEEN_BY]
    sessions = (tree.session(seen) for seen in outward)
    return Call(
        client=next((seen.client for seen in outward if seen.client not in ("genai", "litellm")), owner.client),
        provider=provider,
        session_id=_first(sessions) or f"trace-{owner.trace_id}",
        agent=_first(tree.agent(seen) for seen in outward) or owner.service,
        user=_first(seen.user for seen in outward),
        event=event,
        members=group,
        owner=owner,
    )


def _is_partial(seen: Sighting, group: Group) -> bool:
    """Tell whether another sighting knows more of the input."""
    return any((seen.input or 0) < (other.input or 0) and is_part(seen, other) for other in group)


def _preference(seen: Sighting) -> tuple[object, ...]:
    """Sort key: sightings of the whole response first, then the provider's own library, then the innermost."""
    return (
        not seen.finished and (seen.output or 0) <= 1,
        seen.scope not in spellings.INNERMOST_SCOPES,
        seen.end_ns - seen.start_ns,
        -seen.start_ns,
        seen.key,
    )


def _first(values: Iterable[object]) -> Any:
    return next((value for value in values if value is not None), None)


def _tier(tier: str | None) -> str | None:
    return None if tier in (None, "default", "auto") else tier


def _named(told: Sequence[Sighting], group: Group) -> tuple[str, str]:
    """Return provider and model. The model that a gateway requested takes precedence over the aliases that its callers
    see.
    """
    gateway = _first(seen.gateway_model for seen in group)
    if gateway is not None:
        named = next(seen.provider for seen in group if seen.gateway_model == gateway)
        provider, asked = provider_of(named if "/" not in gateway else None, gateway)
        if provider == "unknown" and named is not None:
            provider = provider_of(named, asked)[0]
        served = _first(
            seen.response_model
            for seen in group
            if seen.response_model is not None and seen.response_model.startswith(asked)
        )
        return provider, bounded(served or asked)
    model = _first(seen.response_model for seen in told) or _first(seen.response_model for seen in group)
    if model is None:
        model = _first(seen.request_model for seen in told) or _first(seen.request_model for seen in group)
    named = _first(seen.provider for seen in told)
    return provider_of(named, bounded(model or "unknown"))
