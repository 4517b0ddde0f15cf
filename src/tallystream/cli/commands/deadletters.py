"""`tallystream deadletters list | show | replay`: records that were not counted, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from tallystream.cli.commands.deadletters_replay import replay
from tallystream.cli.options import DataDir, JsonOption, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.consoles import console, err_console
from tallystream.cli.output.text import count, short_id, stamp, visible
from tallystream.schemas.errors import Reason, UsageError
from tallystream.streams.deadletters.reasons import WORDS

HELP = """
Show records that were not counted and why, and count them later.

A record that cannot be counted is kept for 30 days with the reason. Only its allow-listed fields are kept, never the
content of prompts and tools. Of a body that could not be decoded, only size and hash are kept.
"""

ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="REASON", help="Only this reason, as shown by `list`.")
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="T", help="Only from this time on: 2026-11-21, or 24h, 7d (ago).")
]


def list_(
    reason: ReasonOption = None,
    since: Since = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=0, help="How many of the newest to list; 0: all.", show_default="20; all in JSON"),
    ] = None,
    json: JsonOption = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """List records that were not counted: a summary by reason, then the newest records."""
    from tallystream.cli.output.times import parse_when
    from tallystream.streams.service.clock import SystemClock, utc

    if reason is not None and reason not in list(Reason):
        raise UsageError(f"{reason!r} is not a valid reason", f"reasons: {', '.join(Reason)}")
    now = SystemClock().now_ns()
    first = None if since is None else parse_when(since, now, "--since")
    letters = [
        letter
        for letter in _read(data_dir, kafka)
        if (reason is None or letter["reason"] == reason) and (first is None or _ns(letter["at"]) >= first)
    ]
    letters.sort(key=lambda letter: letter["at"], reverse=True)
    by_reason = Counter(letter["reason"] for letter in letters)
    most = (0 if json else 20) if limit is None else limit
    shown = letters[:most] if most else letters
    if json:
        document = {"as_of": stamp(utc(now)), "complete": True, "total": len(letters), "by_reason": dict(by_reason)}
        emit_json(document | {"deadletters": shown})
        return
    if not letters:
        console.print(
            "No dead letters: every record received was counted." if reason is None and since is None else "None."
        )
        return
    console.print(_summary(by_reason))
    console.print(_newest(shown))
    if len(shown) < len(letters):
        console.print(f"… and {count(len(letters) - len(shown))} older ones: --limit 0 shows all.")
    console.print("Details: tallystream deadletters show SOURCE", style="dim")


def show(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="The source, as shown by `list`.", show_default=False)
    ],
    json: JsonOption = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Show one dead letter in full, with the meaning of its reason and what to do."""
    letter = next((letter for letter in _read(data_dir, kafka) if letter["source"] == source), None)
    if letter is None:
        raise UsageError(
            f"no dead letter has the source {source!r}", "`tallystream deadletters list` shows the sources"
        )
    if json:
        emit_json(letter)
        return
    meaning, step = _words(letter["reason"])
    console.print(Text(f"{visible(letter['reason'])}: {meaning}", style="bold"))
    console.print(Text(f"Next: {step}\n"))
    for name, value in letter.items():
        if name not in ("reason", "record"):
            console.print(Text(f"  {name:<14} {visible(str(value))}"), soft_wrap=True)
    for name, value in letter.get("record", {}).items():
        console.print(Text(f"  record.{visible(name)}  {visible(str(value))}"), soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add `deadletters` and its commands."""
    group = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    group.command("list")(list_)
    group.command("show")(show)
    group.command("replay")(replay)
    app.add_typer(group, name="deadletters")


def _read(data_dir: Any, kafka: str | None) -> list[dict[str, Any]]:
    """Return all dead letters. Of those with the same source only the latest, because a replay repeats sources."""
    from tallystream.cli.output.progress import bar, run
    from tallystream.streams.kafka.reader import latest

    settings = settings_from(data_dir, kafka)
    with bar("reading dead letters") as progress:
        values = run(latest(cluster(settings), settings.topics().deadletters.name, progress=progress))
    letters, unreadable = parse(values.values())
    if unreadable:
        err_console.print(f"{unreadable} records are not dead letters and were left out.", style="yellow")
    return letters


def parse(values: Iterable[bytes]) -> tuple[list[dict[str, Any]], int]:
    """Return the dead letters as documents (times as `2026-11-21T14:03:22Z`), and how many values were not one."""
    from pydantic import ValidationError

    from tallystream.schemas.deadletters import DeadLetter

    letters, unreadable = [], 0
    for value in values:
        try:
            letter = DeadLetter.model_validate_json(value)
        except ValidationError:
            unreadable += 1
            continue
        letters.append(letter.model_dump(mode="json", exclude_none=True) | {"at": stamp(letter.at)})
    return letters, unreadable


def _ns(at: str) -> int:
    return int(datetime.fromisoformat(at).astimezone(UTC).timestamp()) * 1_000_000_000


def _words(reason: str) -> tuple[str, str]:
    try:
        return WORDS[Reason(reason)]
    except (ValueError, KeyError):
        return "A newer version wrote this reason.", "Use that version to read it."


def _grid(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        grid.add_column(column, justify="right" if column == "Records" else "left", overflow="fold")
    return grid


def _summary(by_reason: Counter[str]) -> RenderableType:
    grid = _grid("Reason", "Records", "What it means, and what to do")
    for reason, number in by_reason.most_common():
        meaning, step = _words(reason)
        grid.add_row(Text(visible(reason)), count(number), Text(f"{meaning} {step}"))
    return grid  # type: ignore[no-any-return]  # rich is imported where it is used


def _newest(letters: list[dict[str, Any]]) -> RenderableType:
    grid = _grid("Source", "When (UTC)", "Reason", "Connection", "Session", "Detail")
    for letter in letters:
        grid.add_row(
            Text(visible(letter["source"])),
            letter["at"][:16].replace("T", " "),
            Text(visible(letter["reason"])),
            Text(visible(letter.get("connection_id", ""))),
            Text(short_id(letter.get("session_id", ""))),
            Text(visible(letter["detail"])),
        )
    return grid  # type: ignore[no-any-return]
