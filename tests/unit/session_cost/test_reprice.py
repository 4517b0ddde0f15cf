"""Repricing counts what the fold counts, and applies both books to each request."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.usage import Session, Truth, event, fleet

from tallystream.agents.pricing import Book, read_overlay
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.reprice import Repricing

NOW = datetime(2026, 11, 21, 14, 30, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
WINDOW = Window(7 * 86_400_000)
BOOK = Book()
FREE = """
[[price]]
provider = "openai"
model = "o3"
input = "0"
output = "0"
"""


def usd(pico: int) -> Decimal:
    return Decimal(pico).scaleb(-12)


@given(st.integers(0, 10**6))
@examples(20)
def test_repriced_sums_are_exact_with_both_books(seed: int) -> None:
    truth, repricing = Truth(), Repricing(BOOK, BOOK, WINDOW)
    for session, events in fleet(random.Random(seed), 12, NOW):
        truth.add(session, events, NOW)
        repricing.add(session.key, session.message(events), NOW_MS)
    lines = truth.hours.values()
    sums = repricing.sums.values()
    assert sum(one.requests for one in sums) == sum(line.counts["requests"] for line in lines)
    assert usd(sum(one.cost for one in sums)) == sum(line.cost for line in lines)
    assert sum(one.unpriced for one in sums) == sum(line.unpriced for line in lines)
    assert all((one.cost, one.unpriced) == (one.other_cost, one.other_unpriced) for one in sums)


def test_another_book_changes_only_its_models(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(FREE)
    repricing = Repricing(BOOK, Book(read_overlay(path)), WINDOW)
    rng = random.Random(3)
    session = Session("codex-7f3a", "s1", "search", "acme/app")
    events = [event(rng, NOW, model, "default") for model in ("o3", "gpt-5-codex", "gpt-5-codex")]
    repricing.add(session.key, session.message(events), NOW_MS)
    found = {key.model: (one.cost > 0, one.other_cost) for key, one in repricing.sums.items()}
    codex = next(one.cost for key, one in repricing.sums.items() if key.model == "gpt-5-codex")
    assert found == {"o3": (True, 0), "gpt-5-codex": (True, codex)}


def test_repricing_leaves_out_what_the_fold_leaves_out() -> None:
    rng = random.Random(4)
    session = Session("codex-7f3a", "s1", None, "acme/app")
    small, large = event(rng, NOW), event(rng, NOW)
    large |= {"event_id": small["event_id"], "output": small["output"] + 5_000, "model": small["model"]}
    large |= {name: small[name] for name in ("input_uncached", "cache_read", "cache_write_5m", "reasoning")}
    old = event(rng, NOW - timedelta(days=9))
    early = event(rng, NOW - timedelta(hours=3))
    repricing = Repricing(BOOK, BOOK, WINDOW, int((NOW - timedelta(hours=1)).timestamp()) * 10**9)
    for events in ([small], [large], [small], [old], [early]):
        repricing.add(session.key, session.message(events), NOW_MS)
    repricing.add(session.key, b"{", NOW_MS)
    kept = [one for one in repricing.sums.values() if one.requests]
    assert [(one.requests, one.tokens) for one in kept] == [
        (1, sum(large[name] for name in ("input_uncached", "cache_read", "cache_write_5m", "output")))
    ]


def test_records_of_one_request_in_two_hours_are_one() -> None:
    repricing = Repricing(BOOK, BOOK, WINDOW)
    session, rng = Session("codex-7f3a", "s1", "search", "acme/app"), random.Random(4)
    first = event(rng, NOW - timedelta(hours=1), "o3", "default")
    larger = first | {"occurred_at": event(rng, NOW)["occurred_at"], "output": first["output"] + 5}
    repricing.add(session.key, session.message([first]), NOW_MS)
    repricing.add(session.key, session.message([larger, first]), NOW_MS)
    (one,) = repricing.sums.values()
    wanted = sum(larger[name] for name in ("input_uncached", "cache_read", "cache_write_5m", "output"))
    assert (one.requests, one.tokens) == (1, wanted)
    long_after = NOW_MS + 8 * 86_400_000
    repricing.add(session.key, session.message([first | {"occurred_at": long_after * 10**6}]), long_after)
    assert one.requests == 2, "the hour of the first was closed"
