"""`tallystream cost sessions | session-hours | hours | models`: the cost tables."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from tallystream.cli.options import DataDir, KafkaOption, cluster, settings_from
from tallystream.cli.output.consoles import console, err_console
from tallystream.schemas.errors import UsageError

if TYPE_CHECKING:
    from tallystream.agents.cost_query import Query
    from tallystream.agents.cost_table import Table
    from tallystream.agents.session_tree import SessionTree
    from tallystream.cli.output.cost_table import Shown
    from tallystream.settings.settings import Settings

HELP = """
Show tokens and cost by session, hour or model.

Times are UTC. A row is final once its last hour ended more than an hour ago. Until then, and when late events arrive,
it can still grow. Tables include everything that was published when the command began. They are read from the ledger if
it is up to date, and otherwise from Kafka.
"""

By = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="KEY[,KEY]",
        help="Group by team, user, repo, branch, env, host, cost_center, agent, billing, account, connection, client,"
        " provider, model, service_tier, book, hour or session; all other dimensions are added up.",
    ),
]
OnlyConnection = Annotated[str | None, typer.Option("--connection", metavar="ID", help="Only this connection.")]
OnlySession = Annotated[
    str | None,
    typer.Option("--session", metavar="ID", help="Only this session; a short id copied from the table is enough."),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="T",
        help="Only the hour that contains this time and later ones: 2026-11-21, 2026-11-21T14:00Z, or 24h, 7d (ago).",
    ),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="T", help="Only hours that begin before this time (same forms).")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one document {as_of, complete, rows} with exact decimal dollars.")
]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV (RFC 4180), safe to open in a spreadsheet.")]
Limit = Annotated[int, typer.Option("--limit", min=0, help="Rows of the table for people; 0 shows all.")]
Wide = Annotated[bool, typer.Option("--wide", help="Show full ids, attribution, tier and book in the table.")]
FromTopics = Annotated[
    bool, typer.Option("--from-topics", help="Read Kafka even if the ledger is up to date. The rows are the same.")
]

WithChildren = Annotated[
    bool,
    typer.Option(
        "--with-children",
        help="Add the sessions that a session started (Codex's subagents) to its row, and name them in `children`."
        " Only for `sessions`.",
    ),
]

HOUR_MS = 3_600_000
AHEAD_MS = 48 * HOUR_MS
"""How long before an hour begins its first row may have been written."""
VIEWS = {
    "sessions": "One row for each session and model, the most expensive first.",
    "session-hours": "One row for each session, UTC hour and model, in order of time.",
    "hours": "One row for each UTC hour and model, in order of time.",
    "models": "One row for each model, the most expensive first.",
}


def register(app: typer.Typer) -> None:
    """Add `cost` and its views."""
    group = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    for view, text in VIEWS.items():
        group.command(view, help=text)(_command(view))
    app.add_typer(group, name="cost")


def _command(view: str) -> Callable[..., None]:
    """Return a view's command. All views take the same options."""

    def command(
        by: By = None, connection: OnlyConnection = None, session: OnlySession = None, since: Since = None,
        until: Until = None, json: Json = False, csv: Csv = False, limit: Limit = 50, wide: Wide = False,
        from_topics: FromTopics = False, with_children: WithChildren = False, data_dir: DataDir = None,
        kafka: KafkaOption = None,
    ) -> None:  # fmt: skip
        from tallystream.agents.cost_query import Query
        from tallystream.agents.session_tree import SessionTree
        from tallystream.cli.output.times import parse_when
        from tallystream.schemas.hours import HOUR_NS, hour_of
        from tallystream.streams.service.clock import SystemClock

        if json and csv:
            raise UsageError("--json and --csv cannot be used together", "take one")
        now = SystemClock().now_ns()
        query = Query(
            view,
            tuple(dict.fromkeys(part.strip() for part in by.split(",") if part.strip())) if by else (),
            connection,
            session,
            None if since is None else hour_of(parse_when(since, now, "--since")),
            None if until is None else -(-parse_when(until, now, "--until") // HOUR_NS),
        )
        settings = settings_from(data_dir, kafka)
        if with_children:
            query = replace(query, tree=SessionTree({}))  # refuse a query without children before Kafka is read
            query = replace(query, tree=_tree(settings))
        form = "json" if json else "csv" if csv else "wide" if wide else "people"
        _show(query, settings, now, form, limit, from_topics=from_topics)

    return command


def _tree(settings: Settings) -> SessionTree:
    """Return the tree of sessions, which is small, as Kafka has it now."""
    from tallystream.agents.session_tree import SessionTree
    from tallystream.cli.output.progress import run
    from tallystream.streams.kafka.reader import latest

    return SessionTree.of_messages(run(latest(cluster(settings), settings.topics().session_links.name)).values())


def _show(query: Query, settings: Settings, now: int, form: str, limit: int, *, from_topics: bool) -> None:
    from tallystream.agents.cost_table import Table
    from tallystream.cli.ledger import Printed, answer
    from tallystream.cli.output.cost_table import cost_table, people
    from tallystream.cli.output.cost_text import cost_csv, cost_json
    from tallystream.cli.output.progress import no_collector, run

    if form == "people":
        query = people(query)
    with no_collector():
        shown: Shown | Printed | None = None
        if not from_topics:
            shown = run(answer(settings, query, limit if form in ("people", "wide") else 0, now, form), logs=False)
        complete = True
        if shown is None:
            shown, complete = run(collect(settings, query))
        if not complete:
            err_console.print(
                f"The topic {settings.topics().session_hour_rows.name} does not exist. Has a worker ever run with"
                " this TALLYSTREAM_PREFIX?",
                style="yellow",
            )
        if shown.skipped:
            err_console.print(f"{shown.skipped} records are not cost rows and were left out.", style="yellow")
        if isinstance(shown, Printed):
            return
        if form in ("json", "csv"):
            assert isinstance(shown, Table)
            if form == "json":
                cost_json(shown, now, complete=complete)
            else:
                cost_csv(shown, now)
        else:
            cost_table(shown, now, limit=limit, wide=form == "wide", console=console)


async def collect(settings: Settings, query: Query) -> tuple[Table, bool]:
    """Read the rows topic and return the table, and whether the topic exists and was read to its end.

    Rows of an hour are written from a day before it begins (a client's clock may be that far ahead) until they expire,
    so records older than that, and a day more for differences between our clocks, are not read.

    Raises:
        UnreachableError: Kafka did not answer, or the end offsets read at the start were not reached.

    """
    from tallystream.agents.cost_table import Table, keep_newest
    from tallystream.agents.seen_share import SeenCounter
    from tallystream.cli.ledger import witnesses
    from tallystream.cli.output.progress import bar
    from tallystream.streams.kafka.reader import TopicReader

    table = Table(query)
    said = await witnesses(settings) if query.shares else []
    counter = SeenCounter(said) if said else None
    # Which share of a session was seen is told of all of its hours.
    since_ms = None if query.since is None or counter is not None else query.since * HOUR_MS - AHEAD_MS
    async with TopicReader(cluster(settings), settings.topics().session_hour_rows.name, since_ms=since_ms) as reader:
        with bar("reading cost rows") as progress:
            newest: dict[bytes, tuple[tuple[int, int], bytes]] = {}
            at = -1
            async with aclosing(reader.batches(progress)) as batches:
                async for partition, records in batches:
                    if partition != at:
                        # A key belongs to one partition, so the rows of partitions already read are complete.
                        table.add((value for _, value in newest.values()), counter)
                        newest.clear()
                        at = partition
                    table.skipped += keep_newest(newest, records)
            table.add((value for _, value in newest.values()), counter)
        if counter is not None:
            table.seen = counter.sessions()
        return table, reader.extent.exists
