"""Amounts that a provider rounds, hour by hour: the day's difference is rounding, and no price error."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support.bills import DAY, record, row, take

from tallystream.agents.pricing import Book
from tallystream.agents.reconciliation.days import Reconciliation
from tallystream.agents.reconciliation.price_check import PriceLine, check_prices
from tallystream.agents.reconciliation.report import explain
from tallystream.agents.reconciliation.seen import book_price

MODEL = "claude-haiku-4-5"
GROUP = {"api_key_id": "apikey_1", "workspace_id": "wrkspc_1", "model": MODEL, "service_tier": "standard",
         "context_window": "0-200k"}  # fmt: skip
BOOK = Book()
READ = book_price(BOOK, "anthropic", MODEL, "standard", "short", "cache_read", 1_795_255_200 * 10**9)


def cents(tokens: int, price: Fraction) -> str:
    """Return an amount with six decimals of a cent, as the analytics have it."""
    units = round(tokens * price * 10**8)
    return f"{units // 10**6}.{units % 10**6:06}"


def by_the_book(line: PriceLine, day: str) -> Fraction | None:
    return READ if line.kind == "cache_read" and day == DAY else None


def hours_of(counts: list[int], price: Fraction) -> dict[str, Any]:
    """Return the statement of a day with so many cache reads an hour, all of which telemetry has."""
    costs, used = [], []
    view = Reconciliation(BOOK)
    assert READ is not None
    for hour, tokens in enumerate(counts):
        at = {"starting_at": f"{DAY}T{hour:02}:00:00Z", "ending_at": f"{DAY}T{hour:02}:59:59Z"}
        amount = cents(tokens, price)
        money = {"amount": amount, "list_amount": amount, "currency": "USD", "requests": None}
        kind = {"cost_type": "tokens", "token_type": "cache_read_input_tokens"}
        costs.append(at | {"cost": money, "group": GROUP | kind})
        counted = {"uncached_input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": tokens}
        used.append(at | {"group": GROUP, "usage": counted | {"cache_creation": {}}})
        usd = Decimal(int(tokens * READ * 10**12)).scaleb(-12)
        view.row(*row("claude-1", f"{DAY}T{hour:02}:00:00Z", MODEL, str(usd), provider="anthropic", tier=None,
                      session=str(hour), cache_read=tokens), 0)  # fmt: skip
    view.record(record("anthropic cost", DAY, costs))
    view.record(record("anthropic usage", DAY, used))
    return take(view)["anthropic", "all", DAY]


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=24))
def test_hourly_rounding_counts_as_rounding_of_the_day(counts: list[int]) -> None:
    # A price that does not fit into the digits of a small amount: a third more decimals than the analytics have.
    assert READ is not None
    statement = hours_of(counts, READ + Fraction(1, 10**14))
    others = {name: value for name, value in statement["causes"].items() if name != "rounding" and value != "0"}
    assert others == {}
    assert statement["causes"]["rounding"] == statement["difference_usd"]
    checks = check_prices([statement], by_the_book)
    assert len(checks) == (statement["bill_usd"] != "0")
    assert all(one.right for one in checks)


def test_wrong_price_is_not_counted_as_rounding() -> None:
    assert READ is not None
    statement = hours_of([10_000] * 24, READ * Fraction(101, 100))
    assert Decimal(statement["causes"]["book_price"]) == Decimal(statement["difference_usd"]) > 0
    assert statement["causes"]["rounding"] == "0"


def test_tiny_amounts_are_written_with_their_digits() -> None:
    assert READ is not None
    statement = hours_of([2], READ + Fraction(26, 10**10))
    assert "the bill is $0.000000010 more" in explain([statement])
    assert "+$0.000000010 is below the last digit that the provider transmits" in explain([statement])
