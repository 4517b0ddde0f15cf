"""`tallystream coverage`: which share of the known tokens was counted, by what the clients' other signals say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

import typer

from tallystream.cli.options import DataDir, KafkaOption, emit_json, settings_from
from tallystream.cli.output.consoles import console
from tallystream.schemas.errors import UsageError

if TYPE_CHECKING:
    from tallystream.agents.coverage import CoverageAxis, CoverageRow
    from tallystream.agents.ledger.queries.coverage import CoverageRange
    from tallystream.agents.ledger.store.database import Database
    from tallystream.settings.settings import Settings

By = Annotated[
    str, typer.Option("--by", metavar="connection|session|hour", help="One row for each connection, session or hour.")
]
OnlyConnection = Annotated[str | None, typer.Option("--connection", metavar="ID", help="Only this connection.")]
OnlySession = Annotated[str | None, typer.Option("--session", metavar="ID", help="Only this session (its full id).")]
Since = Annotated[
    str,
    typer.Option("--since", metavar="T", help="Only the hour that contains this time and later ones: 24h, 2026-11-21."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="T", help="Only hours that begin before this time.")]
Json = Annotated[bool, typer.Option("--json", help="Print one document {as_of, rows}.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV (RFC 4180), safe to open in a spreadsheet.")]
Limit = Annotated[int, typer.Option("--limit", min=0, help="Rows of the table for people; 0 shows all.")]
HOUR_AFTER_ALL = 10**6


def coverage(
    by: By = "connection", connection: OnlyConnection = None, session: OnlySession = None, since: Since = "7d",
    until: Until = None, json: Json = False, csv: Csv = False, limit: Limit = 50, data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:  # fmt: skip
    """Show which share of the known tokens was counted, those with most missing first.

    Codex, Claude Code, Gemini CLI and Qwen Code are counted from their logs. Their metrics and spans say the same
    usage: they are witnesses, which never cost anything, and show when logs were lost. A connection without a witness
    sends logs only, so nothing can be said of it. docs/coverage.md explains what to do about missing tokens.
    """
    from tallystream.agents.coverage import CoverageAxis
    from tallystream.agents.ledger.queries.coverage import CoverageRange
    from tallystream.cli.output.coverage_table import row_document, show_csv, show_table
    from tallystream.cli.output.progress import run
    from tallystream.cli.output.text import stamp
    from tallystream.cli.output.times import parse_when
    from tallystream.schemas.hours import HOUR_NS, hour_of
    from tallystream.streams.service.clock import SystemClock, utc

    axis: CoverageAxis | None = next((name for name in get_args(CoverageAxis) if name == by), None)
    if axis is None:
        raise UsageError(f"--by {by!r} is not supported", "use --by connection, session or hour")
    if json and csv:
        raise UsageError("--json and --csv cannot be used together", "take one")
    now = SystemClock().now_ns()
    wanted = CoverageRange(
        hour_of(parse_when(since, now, "--since")),
        HOUR_AFTER_ALL if until is None else -(-parse_when(until, now, "--until") // HOUR_NS) - 1,
        connection,
        session,
        hourly=by == "hour",
    )
    rows = run(collect(settings_from(data_dir, kafka), wanted, axis))
    if json:
        emit_json({"as_of": stamp(utc(now)), "rows": [row_document(row) for row in rows]})
    elif csv:
        show_csv(rows)
    else:
        show_table(rows, axis, limit, console)


async def collect(settings: Settings, wanted: CoverageRange, by: CoverageAxis) -> list[CoverageRow]:
    """Return the rows: from the ledger if it is up to date, and otherwise from the topics.

    Raises:
        UnreachableError: Kafka did not answer.

    """
    from tallystream.agents.coverage import coverage as compare
    from tallystream.agents.ledger.queries.coverage import counted_hours, witnessed_hours
    from tallystream.cli.ledger import current, rebuilt

    def ask(database: Database) -> list[CoverageRow]:
        return compare(counted_hours(database, wanted), witnessed_hours(database, wanted), by)

    topics = settings.topics()
    found = await current(settings, (topics.session_hour_rows, topics.witness), ask)
    if found is not None:
        return found
    return await rebuilt(settings, (topics.session_hour_rows, topics.witness), ask)


def register(app: typer.Typer) -> None:
    """Add `coverage`."""
    app.command("coverage")(coverage)
