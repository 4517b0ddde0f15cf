"""A fleet that is counted by its spans: what it says it sent is what its spans are, once joined."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from tallystream.schemas.clients.genai import Call, Sighting, normalise
from tallystream.schemas.otlp import Encoding
from tallystream.simulator import CANARY, Fleet, FleetConfig, Request, Response
from tallystream.streams.gateway.ingest import decode

CONFIG = FleetConfig(
    agents=5, requests=150, seed=3, start_ns=1_795_290_000_000_000_000, client="genai", duplicates=0.2, late=0.2,
    resend=0.1,
)  # fmt: skip


def sightings(request: Request) -> list[Sighting]:
    encoding = Encoding.JSON if request.content_type == "application/json" else Encoding.PROTOBUF
    decoded = decode(request.body, encoding, "traces")
    assert decoded.logs is not None
    assert not decoded.logs.rejected
    assert decoded.records == request.records
    return [seen for pack in decoded.sightings for seen in pack.sightings]


def told(one: Response) -> tuple[Any, ...]:
    counts = (one.input_uncached, one.cache_read, one.cache_write_5m, one.output, one.reasoning)
    return (one.session.client, one.session.session_id, one.at_ns, one.model, *counts)


def counted(call: Call) -> tuple[Any, ...]:
    names = ("occurred_at", "model", "input_uncached", "cache_read", "cache_write_5m", "output", "reasoning")
    return (call.client, call.session_id, *(call.event[name] for name in names))


@examples(10)
@given(st.integers(0, 999), st.sampled_from(["protobuf", "json", "mixed"]), st.randoms(use_true_random=False))
def test_joined_spans_are_the_fleets_responses_in_any_order(seed: int, encoding: Any, chance: Any) -> None:
    requests = list(Fleet(replace(CONFIG, seed=seed, encoding=encoding)))
    want = {one.n: told(one) for request in requests for one in request.responses}
    seen = [one for request in requests for one in sightings(request)]
    chance.shuffle(seen)
    assert len(want) == CONFIG.requests
    assert Counter(map(counted, normalise(seen))) == Counter(want.values())


def test_genai_fleet_contains_the_difficult_cases() -> None:
    requests = list(Fleet(replace(CONFIG, requests=400)))
    seen = {one.key: one for request in requests for one in sightings(request)}.values()
    calls = normalise(seen)
    assert {call.client for call in calls} == {"copilot", "pydantic-ai", "langchain"}
    naive = sum(one.input or 0 for one in seen)
    true = sum(one.input_uncached + one.cache_read + one.cache_write_5m
               for one in {one.n: one for request in requests for one in request.responses}.values())  # fmt: skip
    assert naive > 1.8 * true
    assert any(one.kind == "sum" and one.has_usage for one in seen)
    assert any(one.failed for one in seen)
    twice = [call for call in calls if "seen_by" in call.event]
    assert {len({one.trace_id for one in call.members}) for call in twice} == {2}
    assert any(request.copies for request in requests)
    assert any(request.resent for request in requests)


def test_same_seed_gives_the_same_bytes() -> None:
    assert [request.body for request in Fleet(CONFIG)] == [request.body for request in Fleet(CONFIG)]
    assert [request.body for request in Fleet(CONFIG)] != [request.body for request in Fleet(replace(CONFIG, seed=4))]


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_content_stays_in_the_bodies(encoding: Any) -> None:
    requests = list(Fleet(replace(CONFIG, encoding=encoding)))
    assert any(CANARY.encode() in request.body for request in requests)
    assert not any(CANARY in repr(sightings(request)) for request in requests)
