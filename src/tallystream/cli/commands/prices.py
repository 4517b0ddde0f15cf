"""`tallystream prices`: shows the price book, and compares it with the bill."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallystream.cli.options import DataDir, JsonOption, KafkaOption, emit_json, settings_from
from tallystream.cli.output.consoles import console
from tallystream.schemas.errors import UsageError

if TYPE_CHECKING:
    from tallystream.agents.pricing.book import Book
    from tallystream.agents.pricing.rates import Card
    from tallystream.agents.reconciliation.price_check import PriceLine
    from tallystream.settings.settings import Settings

HELP = """
Show the price book, including your own prices, and compare it with the provider's bill.
"""
Since = Annotated[
    str | None, typer.Option("--since", metavar="T", help="Only bills of this day and later: 2026-11-01, or 30d (ago).")
]


def check(since: Since = "30d", json: JsonOption = False, data_dir: DataDir = None, kafka: KafkaOption = None) -> None:
    """Compare the charged price per token with the book, and print corrections. Exits with 4 if they differ.

    If a provider reports its list price, the book is compared with that, so a discount is not reported as an error.
    """
    from tallystream.agents.reconciliation.price_check import check_prices, overlay, per_million, words
    from tallystream.cli.commands.reconcile import collect, first_day
    from tallystream.cli.output.progress import run
    from tallystream.streams.service.clock import SystemClock

    settings = settings_from(data_dir, kafka)
    first = first_day(since, SystemClock().now_ns(), "--since")
    statements, _ = run(collect(settings))
    prices = _DayBook(book_of(settings))
    checks = check_prices((one for one in statements if first is None or one["day"] >= first), prices)
    mends = overlay(checks, prices)
    wrong = [one for one in checks if not one.right]
    if json:
        rows = [
            one.line._asdict()
            | {
                "names": sorted(one.names),
                "since": one.since,
                "until": one.until,
                "charged_price_usd": per_million(one.charged),
                "paid_price_usd": per_million(one.paid),
                "book_price_usd": None if one.book is None else per_million(one.book),
                "book_low_by": None if one.off is None else f"{float(one.off):.6f}",
                "tokens": one.tokens,
                "right": one.right,
            }
            for one in checks
        ]
        emit_json({"rows": rows, "overlay": mends})
    elif not checks:
        console.print("No bill with tokens has been polled yet: docs/reconciliation.md explains how to poll one.")
    else:
        for one in checks:
            console.print(words(one), markup=False, soft_wrap=True)
        if mends:
            console.print(
                "\nFor the file of TALLYSTREAM_PRICES. Then `tallystream reprice --apply` corrects what is already"
                " counted (docs/pricing.md):\n",
                markup=False, soft_wrap=True,
            )  # fmt: skip
            console.print(mends, markup=False, soft_wrap=True)
    if wrong:
        raise typer.Exit(4)


def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model, as a client names it.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="T", help="At this time: 2026-11-21, 30d (ago).", show_default="now")
    ] = None,
    provider: Annotated[
        str | None, typer.Option("--provider", help="openai, anthropic or google.", show_default="whose model it is")
    ] = None,
    tier: Annotated[str | None, typer.Option("--tier", help="A service tier, such as priority.")] = None,
    json: JsonOption = False, data_dir: DataDir = None,
) -> None:  # fmt: skip
    """Show the price of a model at a time, in dollars per million tokens."""
    from tallystream.cli.output.times import parse_when
    from tallystream.streams.service.clock import SystemClock

    now = SystemClock().now_ns()
    moment = now if at is None else parse_when(at, now, "--at")
    book = book_of(settings_from(data_dir))
    owners = (provider,) if provider is not None else ("openai", "anthropic", "google")
    found = [(owner, card) for owner in owners if (card := book.card(owner, model, tier, moment)) is not None]
    if not found:
        why = book.why_unpriced(provider or "openai", model, tier)
        raise UsageError(f"{model}: {why}", "docs/pricing.md explains how to add prices")
    owner, card = found[0]
    rows = _rows(card)
    if json:
        emit_json({"provider": owner, "model": model, "tier": tier, "book": book.hash, "rates": rows})
        return
    console.print(f"{model} of {owner}{f', {tier}' if tier else ''}, book {book.hash}", markup=False)
    for row in rows:
        above = f"above {row['above_input_tokens']:,} input tokens: " if row["above_input_tokens"] else ""
        prices = ", ".join(f"{kind.replace('_', ' ')} {'-' if usd is None else '$' + usd}"
                           for kind, usd in row.items() if kind != "above_input_tokens")  # fmt: skip
        console.print(f"  {above}{prices}", markup=False, soft_wrap=True)


def _rows(card: Card) -> list[dict[str, Any]]:
    from tallystream.agents.reconciliation.price_check import per_million

    return [
        {"above_input_tokens": start}
        | {
            kind: None if rate is None else per_million(Fraction(rate, 10**12))
            for kind, rate in rates._asdict().items()
        }
        for start, rates in zip((0, *card.starts), card.rates, strict=True)
    ]


def book_of(settings: Settings) -> Book:
    """Return the price book of this deployment; private prices take precedence."""
    from tallystream.agents.pricing import Book, read_overlay

    return Book(read_overlay(settings.prices) if settings.prices else None)


class _DayBook:
    """The prices of the book at noon of a day."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def __call__(self, line: PriceLine, day: str) -> Fraction | None:
        from datetime import UTC, datetime

        from tallystream.agents.reconciliation.seen import book_price

        noon = int(datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC).timestamp()) * 10**9
        return book_price(self._book, line.provider, line.model, line.tier, line.window, line.kind, noon)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    group.command("check")(check)
    group.command("show")(show)
    app.add_typer(group, name="prices")
