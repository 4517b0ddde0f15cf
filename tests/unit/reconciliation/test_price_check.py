"""The price book compared with the bill."""

from __future__ import annotations

import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.support.bills import DAY, at, cost, record, take
from tests.support.bills import book as private_book
from tests.support.bills import row as seen_row

from tallystream.agents.pricing import Book, read_overlay
from tallystream.agents.reconciliation.days import Reconciliation
from tallystream.agents.reconciliation.price_check import (
    ChargedPrices,
    PriceCheck,
    PriceLine,
    check_prices,
    overlay,
    words,
)
from tallystream.agents.reconciliation.seen import book_price

COSTS = "/organization/costs"
BOOK = {("gpt-9", "input_uncached"): Fraction(5, 10**6), ("gpt-9", "output"): Fraction(30, 10**6)}


def prices(line: PriceLine, day: str) -> Fraction | None:
    return BOOK.get((line.model, line.kind)) if line.tier == "standard" else None


def statements(*days: tuple[str, list[dict[str, Any]]], book: Book | None = None) -> list[dict[str, Any]]:
    view = Reconciliation(book or Book())
    for day, rows in days:
        view.record(record(COSTS, day, rows))
    return list(take(view).values())


def test_changed_price_is_reported_with_its_first_day() -> None:
    out = cost("gpt-9, output", "30", 1_000_000)
    found = check_prices(
        statements(
            ("2026-11-19", [cost("gpt-9, input", "5", 1_000_000), out]),
            ("2026-11-20", [cost("gpt-9, input", "5.20", 1_000_000), out]),
            (DAY, [cost("gpt-9, input", "10.40", 2_000_000), out]),
        ),
        prices,
    )
    wrong, right = found
    assert (wrong.line.kind, wrong.since, wrong.until, wrong.tokens) == ("input_uncached", "2026-11-20", DAY, 3_000_000)
    assert words(wrong) == (
        "gpt-9 input uncached: the book is 3.8% low ($5.2 a million tokens since 2026-11-20, the book says $5)"
    )
    assert right.right
    assert right.since == "2026-11-19"


def test_printed_prices_correct_the_book(tmp_path: Path) -> None:
    rows = [cost("gpt-9, input", "5.20", 1_000_000), cost("priority | gpt-9, output", "62", 1_000_000)]
    mends = overlay(check_prices(statements((DAY, rows)), prices), prices)
    documents = tomllib.loads(mends)["price"]
    assert documents[0] | {"from": None} == {
        "provider": "openai", "model": "gpt-9", "tier": "priority", "from": None, "output": "62",
    }  # fmt: skip
    assert "# input" in mends, "nobody says what priority input costs, so people fill it in"
    assert documents[1]["input"] == "5.2"
    assert documents[1]["output"] == "30", "what was right is repeated, for an entry replaces the whole"
    path = tmp_path / "prices.toml"
    path.write_text("[[price]]" + mends.split("[[price]]")[-1])
    noon = 1_795_262_400 * 10**9
    assert book_price(Book(read_overlay(path)), "openai", "gpt-9", "standard", "short", "input_uncached", noon) == (
        Fraction("5.2") / 10**6
    )


def test_discount_is_not_reported_as_a_price_error(tmp_path: Path) -> None:
    rows = [cost("gpt-9, input", "4.50", 1_000_000), cost("gpt-9, output", "27", 1_000_000)]
    entry = '[[price]]\nprovider = "openai"\nmodel = "gpt-9"\ninput = "5"\noutput = "30"\n'
    found = check_prices(statements((DAY, rows), book=private_book(tmp_path, entry)), prices)
    assert all(one.right for one in found)
    assert {one.paid for one in found} == {Fraction("4.5") / 10**6, Fraction(27) / 10**6}
    assert words(min(found, key=lambda one: one.paid)) == (
        f"gpt-9 input uncached: the book is right, $5 a million tokens since {DAY}, $4.5 after the discount"
    )
    assert overlay(found, prices) == ""


def test_rounded_amount_is_not_a_price_error() -> None:
    """0.125 dollars a million: three tokens cost 0.000000375, which a provider with 8 decimals writes as 0.00000038."""

    def book_of(dollars: str) -> ChargedPrices:
        def found(line: PriceLine, day: str) -> Fraction | None:
            return Fraction(dollars) / 10**6 if line.kind == "cache_read" and day else None

        return found

    rows = [cost("gpt-9, cached input", "0.00000038", 3)]
    few = ("2026-11-19", [cost("gpt-9, cached input", "0.00000013", 1)])
    said = statements(few, (DAY, rows))
    (one,) = check_prices(said, book_of("0.125"))
    assert (one.right, one.since, overlay([one], book_of("0.125"))) == (True, "2026-11-19", "")
    (one,) = check_prices(said, book_of("0.12"))
    assert not one.right, "a difference that the last digit does not explain stays an error"
    # A statement of an earlier release does not say how its amounts are rounded.
    for statement in said:
        for tier in statement["cells"][0]["tiers"]:
            del tier["rounding_usd"]
    (one,) = check_prices(said, book_of("0.125"))
    assert not one.right


def test_free_tokens_and_products_are_not_used_for_price_checks() -> None:
    assert check_prices(statements((DAY, [cost("gpt-9, input", "0E-6176", 10), cost("whisper", "3")])), prices) == []


def by(book: Book) -> ChargedPrices:
    def price(line: PriceLine, day: str) -> Fraction | None:
        noon = int(at(f"{day}T12:00:00Z").timestamp()) * 10**9
        return book_price(book, line.provider, line.model, line.tier, line.window, line.kind, noon)

    return price


SNAPSHOTS = """
[[price]]
provider = "openai"
model = "gpt-9"
input = "2.50"
output = "10"

[[price]]
provider = "openai"
model = "gpt-9-2024-05-13"
input = "5"
output = "15"

[[price]]
provider = "openai"
model = "gpt-10-2026-01-01"
input = "7"
output = "70"
"""


def test_a_snapshot_is_compared_with_its_own_price(tmp_path: Path) -> None:
    book = private_book(tmp_path, SNAPSHOTS)
    own = [
        cost("gpt-9-2024-05-13, input", "5", 1_000_000),
        cost("gpt-9-2024-05-13, output", "15", 1_000_000),
        cost("gpt-10-2026-01-01, input", "7", 1_000_000),
    ]
    checks = check_prices(statements((DAY, own), book=book), by(book))
    assert [(one.line.model, one.line.kind, one.right) for one in checks] == [
        ("gpt-10", "input_uncached", True), ("gpt-9", "input_uncached", True), ("gpt-9", "output", True),
    ]  # fmt: skip

    (wrong,) = check_prices(statements((DAY, [cost("gpt-9-2024-05-13, input", "6", 1_000_000)]), book=book), by(book))
    assert words(wrong).endswith(f"the book is 16.7% low ($6 a million tokens since {DAY}, the book says $5)")
    (entry,) = tomllib.loads(overlay([wrong], by(book)))["price"]
    assert (entry["model"], entry["input"], entry["output"]) == ("gpt-9-2024-05-13", "6", "15"), (
        "others stay as they are"
    )


def test_a_price_between_those_of_two_snapshots_is_not_an_error(tmp_path: Path) -> None:
    book = private_book(tmp_path, SNAPSHOTS)

    def checked(of_the_old: str) -> PriceCheck:
        rows = [cost("gpt-9, input", "2.5", 1_000_000), cost("gpt-9-2024-05-13, input", of_the_old, 1_000_000)]
        (one,) = check_prices(statements((DAY, rows), book=book), by(book))
        return one

    mixed = checked("5")
    assert mixed.right
    assert mixed.off == 0
    assert "between the prices of its snapshots ($2.5 to $5)" in words(mixed)
    dear = checked("9")
    assert not dear.right
    mends = overlay([dear], by(book))
    assert tomllib.loads(mends) == {}, "nobody knows which of them was charged, so nothing is changed by pasting it"
    assert "gpt-9, gpt-9-2024-05-13 have different prices" in mends


def test_line_items_without_dates_are_compared_with_the_snapshot_that_telemetry_names(tmp_path: Path) -> None:
    book = private_book(tmp_path, SNAPSHOTS)
    view = Reconciliation(book)
    view.row(*seen_row("c", f"{DAY}T09:00:00Z", "gpt-10-2026-01-01", "0.7", input_uncached=100_000), append_ms=1)
    view.record(record(COSTS, DAY, [cost("gpt-10, input", "0.77", 100_000)]))
    (one,) = check_prices(take(view).values(), by(book))
    assert (one.book, one.right) == (Fraction(7, 10**6), False)
    (entry,) = tomllib.loads(overlay([one], by(book)))["price"]
    assert (entry["model"], entry["input"], entry["output"]) == ("gpt-10", "7.7", "70")
