"""Normalising a fleet's bodies gives what the fleet reports as billed; both use separate code."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.oracle import JSON

from tallystream.agents.pricing import Book
from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.money import to_usd
from tallystream.schemas.otlp import Encoding, inspect
from tallystream.simulator import Fleet, FleetConfig, Request, Response
from tallystream.simulator.model import ClientName
from tallystream.simulator.prices import dollars
from tallystream.simulator.truth import PICO

START = 1_795_290_000_000_000_000
BY_THE_CLIENT = ("user", "agent", "billing", "account")
"""Attribution that a client finds by itself. The fleet only tells what its operator set."""
MS = 10**6
COUNTS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "tool")


def encoding_of(request: Request) -> Encoding:
    return Encoding.JSON if request.content_type == JSON else Encoding.PROTOBUF


def wanted(response: Response) -> tuple[Any, ...]:
    """Return the gateway's expected event of a response. Codex writes ns, but its `event.timestamp` is used."""
    session, reported = response.session, response.reported_pico
    return (
        session.client, session.provider, session.session_id, response.at_ns // MS * MS, response.model,
        response.service_tier, response.speed, None if reported is None else to_usd(reported),
        *(getattr(response, name) for name in COUNTS), session.user, session.attribution,
    )  # fmt: skip


@pytest.mark.parametrize("client", get_args(ClientName))
@examples(5)
@given(seed=st.integers(0, 2**63), encoding=st.sampled_from(["mixed", "json"]))
def test_normalised_events_are_the_fleets_responses(client: ClientName, seed: int, encoding: Any) -> None:
    config = FleetConfig(
        agents=4, requests=60, seed=seed, start_ns=START, client=client, encoding=encoding, duplicates=0.2, late=0.1,
        resend=0.1,
    )  # fmt: skip
    ids: set[str] = set()
    for request in Fleet(config):
        assert inspect(request.body, encoding_of(request), request.signal) == request.records
        if request.signal != "logs":
            continue
        result = normalise_logs(request.body, encoding_of(request))
        assert result.rejected == []
        found = []
        for pack in result.packs:
            user = pack.attribution.get("user")
            rest = tuple(sorted(pair for pair in pack.attribution.items() if pair[0] not in BY_THE_CLIENT))
            for e in pack.events:
                optional = (e.get(name) for name in ("service_tier", "speed", "reported_cost_usd"))
                found.append((
                    pack.client, pack.provider, pack.session_id, e["occurred_at"] // MS * MS, e["model"], *optional,
                    *(e[name] for name in COUNTS), user, rest,
                ))  # fmt: skip
        assert sorted(map(repr, found)) == sorted(repr(wanted(r)) for r in request.responses)
        here = {e["event_id"] for pack in result.packs for e in pack.events}
        assert len(here) == len({r.n for r in request.responses})
        ids |= here
    assert len(ids) == 60, "a copy has its response's id, and no two responses have one"


@pytest.mark.parametrize("client", get_args(ClientName))
def test_price_of_each_response_equals_genai_prices(client: ClientName) -> None:
    book, priced = Book(), 0
    config = FleetConfig(agents=6, requests=600, seed=3, start_ns=START, client=client, metrics=0, traces=0)
    for request in Fleet(config):
        for r in request.responses:
            ours = book.price(
                r.session.provider, r.model, r.service_tier, r.at_ns, r.input_uncached + r.tool, r.cache_read,
                r.cache_write_5m, r.cache_write_1h, r.output, speed=r.speed,
            )  # fmt: skip
            theirs = dollars(r)
            assert ours == (None if theirs is None else theirs * PICO), r
            priced += ours is not None
    assert 0.9 < priced / 600 < 1, "all but unknown models, tiers and speeds have a price"
