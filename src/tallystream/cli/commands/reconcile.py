"""`tallystream reconcile`: why the providers' bills and our estimates differ, by cause."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tallystream.cli.options import DataDir, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.consoles import console, err_console
from tallystream.schemas.errors import UsageError

if TYPE_CHECKING:
    from tallystream.settings.settings import Settings

By = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="day|model",
        help="day: a row for each provider, account scope and day. model: a row for each model.",
    ),
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="T", help="Only days from this one: 2026-11-01, or 30d (ago).")
]
Until = Annotated[str | None, typer.Option("--until", metavar="T", help="Only days before this one (same forms).")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one document {as_of, complete, total, rows} with exact decimal dollars.")
]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV (RFC 4180), safe to open in a spreadsheet.")]
Explain = Annotated[
    bool, typer.Option("--explain", help="Explain each difference in sentences, with its causes and what to do.")
]
Cells = Annotated[bool, typer.Option("--cells", help="With --json and --by day: also each model, kind and tier.")]


def reconcile(
    by: By = "day", since: Since = None, until: Until = None, provider: Annotated[
        str | None, typer.Option("--provider", help="Only openai or anthropic.")
    ] = None, scope: Annotated[
        str | None, typer.Option("--scope", metavar="NAME", help="Only this account scope, see `tallystream accounts`.")
    ] = None, json: Json = False, csv: Csv = False, explain: Explain = False, cells: Cells = False,
    data_dir: DataDir = None, kafka: KafkaOption = None,
) -> None:  # fmt: skip
    """Split the difference between what providers bill and what we estimate, by cause, to the last digit.

    The parts of a row always add up to exactly its difference. Days are UTC. A day is open until it is over for the
    provider, provisional while the bill may still change, and then settled. A partial day lacks data, and says which.
    docs/reconciliation.md explains every cause.
    """
    from tallystream.agents.reconciliation import report
    from tallystream.cli.output.progress import run
    from tallystream.cli.output.reconcile_table import rows_of, show_csv, show_table
    from tallystream.cli.output.text import stamp
    from tallystream.streams.service.clock import SystemClock, utc

    if by not in ("day", "model"):
        raise UsageError(f"--by {by!r} is not supported", "use --by day or --by model")
    if json + csv + explain > 1:
        raise UsageError("--json, --csv and --explain cannot be used together", "take one")
    now = SystemClock().now_ns()
    first, last = first_day(since, now, "--since"), first_day(until, now, "--until")
    settings = settings_from(data_dir, kafka)
    found, complete = run(collect(settings))
    statements = [
        one
        for one in found
        if (first is None or one["day"] >= first)
        and (last is None or one["day"] < last)
        and provider in (None, one["provider"])
        and scope in (None, one["scope"])
    ]
    if not complete:
        err_console.print(
            f"The topic {settings.topics().reconciliation_days.name} does not exist. Has a poller ever run with this"
            " TALLYSTREAM_PREFIX?",
            style="yellow",
        )
    axis: Literal["day", "model"] = "model" if by == "model" else "day"
    if json:
        document = {"as_of": stamp(utc(now)), "complete": complete, "total": report.total(statements).document()}
        emit_json(document | {"rows": rows_of(statements, axis, cells=cells)})
    elif csv:
        show_csv(rows_of(statements, axis, cells=False), axis)
    elif explain:
        console.print(report.explain(statements) if statements else NOTHING, soft_wrap=True, markup=False)
    elif statements:
        show_table(statements, axis, console)
    else:
        console.print(NOTHING, markup=False)


NOTHING = (
    "No statements match. A poller with an admin key writes them: set TALLYSTREAM_OPENAI_ADMIN_TOKEN or"
    " TALLYSTREAM_ANTHROPIC_ADMIN_TOKEN (docs/reconciliation.md)."
)


def first_day(given: str | None, now_ns: int, option: str) -> str | None:
    """Return the UTC day of a time given on the command line."""
    from tallystream.cli.output.times import parse_when
    from tallystream.streams.service.clock import utc

    return None if given is None else f"{utc(parse_when(given, now_ns, option)):%Y-%m-%d}"


async def collect(settings: Settings) -> tuple[list[dict[str, Any]], bool]:
    """Read the statements by day, provider and scope. Also return whether the topic exists and was read to its end.

    Raises:
        UnreachableError: Kafka did not answer, or the end offsets read at the start were not reached.

    """
    import orjson

    from tallystream.agents.cost_table import keep_newest
    from tallystream.streams.kafka.reader import TopicReader

    newest: dict[bytes, tuple[tuple[int, int], bytes]] = {}
    async with TopicReader(cluster(settings), settings.topics().reconciliation_days.name) as reader:
        async with aclosing(reader.batches()) as batches:
            async for _, records in batches:
                keep_newest(newest, records)
        exists = reader.extent.exists
    statements = [orjson.loads(value) for _, value in newest.values()]
    said = [one for one in statements if one["as_of"] is not None or one["seen_tokens"] or one["state"] == "partial"]
    return sorted(said, key=lambda one: (one["day"], one["provider"], one["scope"])), exists


def register(app: typer.Typer) -> None:
    """Add `reconcile`."""
    app.command("reconcile")(reconcile)
