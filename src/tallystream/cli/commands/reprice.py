"""`tallystream reprice`: what the kept usage costs with another price book, and the rows changed to that."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tallystream.cli.options import DataDir, JsonOption, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.consoles import console
from tallystream.schemas.errors import UsageError

if TYPE_CHECKING:
    from tallystream.agents.pricing import Book
    from tallystream.agents.session_cost.reprice import Repricing
    from tallystream.settings.settings import Settings

DAY_MS = 86_400_000


def reprice(
    prices: Annotated[
        Path, typer.Option("--prices", metavar="FILE", help="Your prices to compare with (docs/pricing.md).")
    ],
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="T", help="Only usage from this time on: 2026-11-21, 24h (ago)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="T", help="Only usage before this time.", show_default="now")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="MODEL", help="Only this model; may be repeated.", show_default="all"),
    ] = None,
    by: Annotated[
        Literal["model", "team"], typer.Option("--by", help="One row for each model, or each team.")
    ] = "model",
    apply: Annotated[
        bool, typer.Option("--apply", help="Change the cost of requests that are already in the tables.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="With --apply: do not ask before anything is changed.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", min=1, help="With --apply: how long to wait for the workers."),
    ] = 120.0,
    json: JsonOption = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Show what the usage that Kafka still keeps (14 days) would cost with the prices in a file, or apply them.

    Each request is priced twice: with the book of this deployment and with the book that the file would make of it.
    Without --apply nothing is changed, and rows in the cost tables keep the prices they were counted with.

        tallystream reprice --prices new-prices.toml --since 7d --by team

    With --apply, the rows of whole hours get the new prices, as far as their hours are not closed (7 days,
    TALLYSTREAM_LATENESS). Tokens and requests stay as they are. First give the workers the same file in
    TALLYSTREAM_PRICES and restart them, so that new usage has the new prices. What will change is shown before, and the
    result is checked against the usage after. It can be interrupted and repeated at any time.

        tallystream reprice --prices new-prices.toml --since 7d --apply
    """
    from tallystream.agents.pricing import Book, read_overlay
    from tallystream.cli.commands import reprice_apply
    from tallystream.cli.output.progress import run
    from tallystream.cli.output.reprice_table import rows_of, show
    from tallystream.cli.output.times import parse_when
    from tallystream.streams.service.clock import SystemClock

    if apply and json and not yes:
        raise UsageError("--apply with --json cannot ask before it changes anything", "add --yes")
    if yes and not apply:
        raise UsageError("--yes has a meaning only with --apply", "leave it out, or add --apply")
    settings, now = settings_from(data_dir, kafka), SystemClock().now_ns()
    since_ns = 0 if since is None else parse_when(since, now, "--since")
    until_ns = None if until is None else parse_when(until, now, "--until")
    models = frozenset(name.lower() for name in model or ())
    book = Book(read_overlay(prices))
    if apply:
        reprice_apply.apply(settings, book, reprice_apply.scope_of(since_ns, until_ns, models, now), by, json=json,
                            yes=yes, seconds=timeout)  # fmt: skip
        return
    repricing = run(_collect(settings, book, since_ns, until_ns))
    rows, total = rows_of(
        {key: sums for key, sums in repricing.sums.items() if not models or key.model.lower() in models}, by
    )
    if json:
        emit_json({"by": by, "total": total, "rows": rows})
    elif not rows:
        console.print("Kafka keeps no usage of that time: its topic `usage` holds 14 days.", markup=False)
    else:
        show(rows, total, by)


async def _collect(settings: Settings, book: Book, since_ns: int, until_ns: int | None) -> Repricing:
    from tallystream.agents.session_cost.hour_state import Window
    from tallystream.agents.session_cost.reprice import Repricing
    from tallystream.cli.commands.prices import book_of
    from tallystream.streams.kafka.reader import TopicReader

    window = Window(int(settings.lateness.total_seconds() * 1000))
    repricing = Repricing(book_of(settings), book, window, since_ns, until_ns)
    # A message is appended after its events occurred; a day more, because the clocks of clients may be ahead.
    since_ms = max(0, since_ns // 1_000_000 - DAY_MS) or None
    last = -1
    usage = TopicReader(cluster(settings), settings.topics().usage.name, since_ms=since_ms)
    async with usage as reader, aclosing(reader.batches()) as batches:
        async for partition, records in batches:
            if partition != last:
                repricing.begin_partition()
                last = partition
            for record in records:
                repricing.add(record.key, record.value, record.timestamp)
    return repricing


def register(app: typer.Typer) -> None:
    """Add `reprice`."""
    app.command("reprice")(reprice)
