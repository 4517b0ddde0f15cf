"""`tallystream deadletters replay`: sends refused events that would now be counted to the usage topic again."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tallystream.cli.options import DataDir, JsonOption, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.consoles import console, err_console
from tallystream.cli.output.text import count, visible
from tallystream.schemas.errors import Reason, UsageError

if TYPE_CHECKING:
    from tallystream.schemas.deadletters import DeadLetter
    from tallystream.streams.kafka.settings import KafkaSettings


def replay(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...", help="Sources, as shown by `list`; all if none is given.", show_default=False
        ),
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="REASON", help="Only this reason, as shown by `list`.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="T", help="Only from this time on: 2026-11-21, or 24h, 7d (ago).")
    ] = None,
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="PREFIX", help="Prefix of another deployment on the same cluster to send to."),
    ] = None,
    connection: Annotated[
        str | None,
        typer.Option("--connection", metavar="C", help="The connection that unknown_connection events belong to."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be sent.")] = False,
    json: JsonOption = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Send refused events that would now be counted to the usage topic again.

    You can run this as often as you like, because an event is counted only once. The dead letters stay for their 30
    days. Events that would be refused again are left out, and the reasons are printed.
    """
    from tallystream.cli.output.progress import run
    from tallystream.cli.output.times import parse_when
    from tallystream.streams.deadletters import replay as letters
    from tallystream.streams.deadletters.kept_messages import restore
    from tallystream.streams.kafka.topics import Topics
    from tallystream.streams.service.clock import SystemClock

    if reason is not None and reason not in list(Reason):
        raise UsageError(f"{reason!r} is not a valid reason", f"reasons: {', '.join(Reason)}")
    settings = settings_from(data_dir, kafka)
    reach, now = cluster(settings), SystemClock().now_ns()
    first = None if since is None else parse_when(since, now, "--since")
    found = _read(reach, settings.topics().deadletters.name)
    if unknown := sorted(set(sources or ()) - found.keys()):
        raise UsageError(
            f"no dead letter has the source {unknown[0]!r}", "`tallystream deadletters list` shows the sources"
        )
    chosen = [
        letter
        for source, letter in found.items()
        if (not sources or source in sources)
        and (reason is None or letter.reason == reason)
        and (first is None or letter.at.timestamp() * 1e9 >= first)
    ]
    chosen = run(restore(reach, settings.topics().usage.name, chosen))
    target = letters.Into(own=into in (None, settings.prefix), lateness=settings.lateness, connection=connection)
    rows, skipped = [], Counter[str]()
    for letter in chosen:
        prepared = letters.prepare(letter, target, now)
        if isinstance(prepared, str):
            skipped[f"{letter.reason.value}: {prepared}"] += 1
        else:
            rows.append(prepared)
    topics = Topics(into) if into else settings.topics()
    topic = topics.usage.name
    if rows and not dry_run:
        run(letters.send(reach, topics, rows))
    if json:
        emit_json({"replayed": len(rows), "dry_run": dry_run, "topic": topic, "skipped": dict(skipped)})
        return
    what = "would be sent" if dry_run else "sent"
    console.print(
        f"{count(len(rows))} {what} to {visible(topic)}; events that were already counted are not counted again."
    )
    for why, number in skipped.most_common():
        console.print(Text(f"{count(number)} left out, {visible(why)}"), soft_wrap=True)


def _read(reach: KafkaSettings, topic: str) -> dict[str, DeadLetter]:
    """Return the dead letters by source; of several with the same source, the latest."""
    from pydantic import ValidationError

    from tallystream.cli.output.progress import bar, run
    from tallystream.schemas.deadletters import DeadLetter
    from tallystream.streams.kafka.reader import latest

    with bar("reading dead letters") as progress:
        values = run(latest(reach, topic, progress=progress))
    found, unreadable = {}, 0
    for value in values.values():
        try:
            letter = DeadLetter.model_validate_json(value)
        except ValidationError:
            unreadable += 1
        else:
            found[letter.source] = letter
    if unreadable:
        err_console.print(f"{unreadable} records are not dead letters and were left out.", style="yellow")
    return found
