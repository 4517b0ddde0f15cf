"""The explanation of a cost multiplies tokens by a price only where the products are the cost to the last digit."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tallystream.agents.ledger.queries.sessions import BucketRow
from tallystream.agents.pricing import Book
from tallystream.console.build import explain
from tallystream.schemas.hours import HOUR_NS
from tallystream.schemas.rows import SUM_COUNTS

HOUR = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()) // 3600


@pytest.fixture(scope="module")
def book() -> Book:
    return Book()


def tiered(book: Book) -> list[tuple[int, tuple[int, int, int, int, int], int]]:
    rates = book.rates("anthropic", "claude-sonnet-4-5", None, HOUR * HOUR_NS)
    assert rates is not None
    assert len(rates) > 1, "the price of this model depends on the size of a request"
    return rates


def bucket(book: Book, cost: int, **counts: int) -> BucketRow:
    whole = dict.fromkeys(SUM_COUNTS, 0) | {"requests": 3} | counts
    return BucketRow(HOUR, "anthropic", "claude-sonnet-4-5", None, None, book.hash, {}, whole, cost, None, 1)


def test_requests_of_one_price_tier_are_explained_by_its_price(book: Book) -> None:
    rates = tiered(book)
    for tier, (start, prices, fee) in enumerate(rates):
        cost = 700_000 * prices[0] + 90_000 * prices[4] + 3 * fee
        found = explain(book, bucket(book, cost, input_uncached=700_000, output=90_000))
        assert found.exact
        assert [one.kind for one in found.charges] == ["input_uncached", "output"]
        told = f"more than {start if tier else rates[1][0]:,} input tokens"
        assert told in found.note
        assert found.note.count("No request") == (tier == 0)


def test_requests_of_several_price_tiers_are_not_explained_by_one_price(book: Book) -> None:
    low, high = tiered(book)[0][1], tiered(book)[-1][1]
    cost = 400_000 * low[0] + 300_000 * high[0]
    found = explain(book, bucket(book, cost, input_uncached=700_000))
    assert not found.exact
    assert found.charges == []
    assert len(found.steps) == len(tiered(book))
