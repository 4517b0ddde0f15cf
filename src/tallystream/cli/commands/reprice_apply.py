"""`tallystream reprice --apply`: plans corrections, sends them, waits for the rows, and plans again as a proof."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import typer

from tallystream.cli.options import cluster, emit_json, read_run
from tallystream.cli.output.consoles import console, err_console
from tallystream.schemas.errors import MismatchError, UnreachableError

if TYPE_CHECKING:
    from tallystream.agents.pricing import Book
    from tallystream.agents.session_cost.reprice import RepriceSums
    from tallystream.agents.session_cost.reprice_plan import PlannedCorrection, RepricePlan, Scope
    from tallystream.settings.settings import Settings

MAX_ROUNDS = 5
"""Usually one round corrects everything. Another one follows if rows changed between being read and being corrected."""
KEPT_HOURS = 14 * 24
"""Without --since: older usage is not in Kafka any more."""


@dataclass(frozen=True)
class RowTotals:
    """What the rows in scope contain."""

    requests: int
    tokens: int
    cost: int


def scope_of(since_ns: int, until_ns: int | None, models: frozenset[str], now_ns: int) -> Scope:
    """Return the rows that may change: hours that lie at least partly in the time, as `tallystream cost` takes them."""
    from tallystream.agents.session_cost.reprice_plan import Scope
    from tallystream.schemas.hours import HOUR_NS

    first = since_ns // HOUR_NS if since_ns else now_ns // HOUR_NS - KEPT_HOURS
    return Scope(first, None if until_ns is None else -(-until_ns // HOUR_NS), models)


def apply(
    settings: Settings, book: Book, scope: Scope, by: Literal["model", "team"], *, json: bool, yes: bool, seconds: float
) -> None:
    """Show what changes, ask, change it, and show the result.

    Raises:
        UnreachableError: Kafka or the workers do not answer.
        MismatchError: rows remain that could not be corrected, mostly because they keep changing.

    """
    from tallystream.cli.output.progress import run
    from tallystream.cli.output.reprice_table import rows_of, show

    found = before = run(plan(settings, book, scope))
    rows, total = rows_of(before.sums, by)
    if not json:
        if found.corrections:
            show(rows, total, by)
        for words in left_words(before):
            console.print(words, markup=False, soft_wrap=True)
    for words in run(other_books(settings, book.hash)):
        err_console.print(words, style="yellow", markup=False, soft_wrap=True)
    if not rows and not before.left and not json:
        console.print("There are no cost rows of that time.")
        return
    if not found.corrections and not json:
        which = "the other rows" if before.left else "the rows"
        console.print(f"Nothing to correct: {which} cost what the book {book.hash} says.", markup=False)
        return
    if found.corrections and not yes and not typer.confirm(f"Correct {len(found.corrections):,} session-hours?"):
        console.print("Nothing was changed.")
        raise typer.Exit(1)
    sent = 0
    for _ in range(MAX_ROUNDS):
        if not found.corrections:
            break
        run(send(settings, found.corrections, seconds))
        sent += len(found.corrections)
        found = run(plan(settings, book, scope))
    document, words = proof(before, found)
    if json:
        left = {why.value: sums.requests for why, sums in found.left.items()}
        emit_json(
            {"by": by, "book": book.hash, "total": total, "rows": rows, "corrections": sent, **document,
             "uncorrected": len(found.corrections), "left": left}
        )  # fmt: skip
    else:
        console.print(words, markup=False, soft_wrap=True)
    if found.corrections:
        raise MismatchError(
            f"{len(found.corrections):,} session-hours could not be corrected",
            "`tallystream deadletters list --reason reprice_refused` says why. If their requests kept changing, give"
            " all workers the same file in TALLYSTREAM_PRICES, restart them, and run this again",
        )


async def plan(settings: Settings, book: Book, scope: Scope) -> RepricePlan:
    """Compare the rows in scope with the usage that Kafka has. Nothing is changed.

    Raises:
        UnreachableError: Kafka does not answer.

    """
    from tallystream.agents.cost_table import keep_newest
    from tallystream.agents.session_cost.hour_state import Window
    from tallystream.agents.session_cost.reprice_plan import RepricePlan
    from tallystream.cli.output.progress import bar
    from tallystream.streams.kafka.reader import TopicReader
    from tallystream.streams.service.clock import SystemClock

    kafka, topics, now_ns = cluster(settings), settings.topics(), SystemClock().now_ns()
    window = Window(int(settings.lateness.total_seconds() * 1000))
    found = RepricePlan(book, window, topics, scope, now_ns // 1_000_000)
    # The rows come first: whatever message a row contains is then among the usage.
    rows: dict[int, dict[bytes, tuple[tuple[int, int], bytes]]] = {}
    async with TopicReader(kafka, topics.session_hour_rows.name) as reader:
        with bar("reading cost rows") as progress:
            async with aclosing(reader.batches(progress)) as batches:
                async for partition, records in batches:
                    mine = [record for record in records if scope.has_key(record.key)]
                    found.skipped += keep_newest(rows.setdefault(partition, {}), mine)
    at = -1
    async with TopicReader(kafka, topics.usage.name) as reader:
        with bar("reading usage") as progress:
            async with aclosing(reader.batches(progress)) as batches:
                async for partition, records in batches:
                    if partition != at:
                        found.end()
                        found.begin(partition, rows.pop(partition, {}))
                        at = partition
                    for record in records:
                        found.add(record)
    found.end()
    for partition, without_usage in rows.items():
        found.begin(partition, without_usage)
        found.end()
    return found


async def send(settings: Settings, corrections: Sequence[PlannedCorrection], seconds: float) -> None:
    """Append corrections to the partitions of their rows, and wait until the workers have applied or refused them.

    Raises:
        UnreachableError: Kafka or the workers do not answer. Sending corrections again is harmless.

    """
    import asyncio

    from aiokafka.errors import KafkaError

    from tallystream.agents.session_cost.correction import HEADER
    from tallystream.cli.commands.catch_up import passed
    from tallystream.streams.kafka.errors import unreachable
    from tallystream.streams.kafka.producer import MANY, producing

    kafka, topics = cluster(settings), settings.topics()
    behind = ""

    def note(what: str) -> None:
        nonlocal behind
        behind = what

    try:
        async with producing(kafka, MANY) as producer:
            pending = [
                await producer.send(
                    topics.usage.name, one.value, key=one.key, partition=one.partition, headers=[HEADER]
                )
                for one in corrections
            ]
            for sent in pending:
                await sent
    except (KafkaError, OSError) as exc:
        raise unreachable(kafka, exc, "take the corrections", "run it again: nothing is corrected twice") from exc
    try:
        async with asyncio.timeout(seconds):
            await passed(kafka, topics.worker_app, topics.usage.name, note)
    except TimeoutError:
        raise UnreachableError(
            f"the corrections are in Kafka, but workers have not read them within {seconds:g} s: {behind}",
            "workers apply them as soon as they run; then run the same command again, which shows the result",
        ) from None


def totals(found: RepricePlan) -> RowTotals:
    """Return what the rows of a plan contain, with those that keep their cost."""
    every: list[RepriceSums] = [*found.sums.values(), *found.left.values()]
    return RowTotals(
        sum(one.requests for one in every), sum(one.tokens for one in every), sum(one.cost for one in every)
    )


async def other_books(settings: Settings, book: str) -> list[str]:
    """Return a warning for this deployment's settings and for each worker of this machine that has another book."""
    from tallystream.cli.commands.prices import book_of
    from tallystream.schemas.status import WorkerStatus
    from tallystream.supervisor.ops_client import read_report

    found = []
    if (ours := book_of(settings).hash) != book:
        found.append(
            f"TALLYSTREAM_PRICES here makes the book {ours}, and this is {book}: workers with that setting go on"
            " pricing new usage by theirs. Give them this file and restart them first."
        )
    try:
        running = read_run(settings.data_dir)
    except UnreachableError:
        return found
    if settings.kafka is not None and settings.kafka != running.kafka:
        return found
    for one in running.components:
        if not one.name.startswith("worker") or one.ops_url is None:
            continue
        try:
            detail = (await read_report(one.ops_url)).detail
        except UnreachableError:
            continue
        if isinstance(detail, WorkerStatus) and detail.book != book:
            found.append(f"{one.name} prices new usage by the book {detail.book}, and this is {book}: restart it.")
    return found


def left_words(found: RepricePlan) -> Iterable[str]:
    """Yield a sentence for each kind of request that keeps its cost."""
    from tallystream.agents.session_cost.reprice_plan import Unchanged
    from tallystream.schemas.money import to_usd

    words = {
        Unchanged.CLOSED: "belong to hours that are closed, because they ended longer than TALLYSTREAM_LATENESS ago",
        Unchanged.NO_USAGE: "cannot be priced again: Kafka no longer has all of their usage",
        Unchanged.TOO_MANY: "belong to hours with too many requests of one session",
    }
    for why, sums in found.left.items():
        difference = sums.other_cost - sums.cost
        known = f"; the difference would be ${to_usd(difference)}" if difference else ""
        yield f"{sums.requests:,} requests keep their cost of ${to_usd(sums.cost)}: they {words[why]}{known}."
    if found.skipped:
        yield f"{found.skipped:,} records are not cost rows that this version can read, and were left out."


def proof(before: RepricePlan, after: RepricePlan) -> tuple[dict[str, Any], str]:
    """Return the totals before and after, and a sentence that compares them.

    Raises:
        MismatchError: there are fewer requests than before, which must never happen.

    """
    from tallystream.schemas.money import to_usd

    one, two = totals(before), totals(after)
    if two.requests < one.requests:
        raise MismatchError(
            f"the rows had {one.requests:,} requests before and have {two.requests:,} now",
            "`tallystream cost session-hours` shows them; please report this",
        )
    document = {
        name: {"requests": sums.requests, "total_tokens": sums.tokens, "cost_usd": to_usd(sums.cost)}
        for name, sums in (("before", one), ("after", two))
    }
    more = two.requests - one.requests
    same = (
        "the same requests and tokens"
        if (one.requests, one.tokens) == (two.requests, two.tokens)
        else (f"{more:,} requests and {two.tokens - one.tokens:,} tokens more, which were counted meanwhile")
    )
    return document, (
        f"The rows cost ${to_usd(one.cost)} before and ${to_usd(two.cost)} now, with {same}"
        f" ({two.requests:,} requests, {two.tokens:,} tokens)."
    )
