"""`tallystream poller`: fetches OpenAI's own usage, costs and models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tallystream.cli.commands.components import Embedded, OpsPort
from tallystream.cli.options import DataDir, JsonOption, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.consoles import err_console
from tallystream.schemas.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tallystream.streams.poller.errors import PollError
    from tallystream.streams.poller.poll_run import PollResult


def poller(
    backfill: Annotated[
        int | None,
        typer.Option(min=0, max=3650, metavar="DAYS", help="Fetch this many days of history once, at the start."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Poll everything once and exit, for cron. Exit code 1: a resource failed.")
    ] = False,
    resource: Annotated[
        list[str] | None,
        typer.Option("--resource", metavar="R", help="With --once: poll only this resource. May be repeated."),
    ] = None,
    ops_port: OpsPort = 0,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
    embedded: Embedded = None,
    as_json: JsonOption = False,
) -> None:
    """Poll what OpenAI reports: usage, costs, models. You may run several: one polls, the others stand by.

    Needs TALLYSTREAM_OPENAI_API_TOKEN (and TALLYSTREAM_OPENAI_ADMIN_TOKEN for /organization/*). A failed poll changes
    nothing and is repeated within minutes. A bucket that OpenAI restates replaces the earlier one.
    """
    from tallystream.components import poller as component

    if resource and not once:
        raise UsageError("--resource requires --once", "a poller that keeps running polls all resources of its file")
    settings = settings_from(data_dir, kafka)
    if backfill is not None:
        settings = settings.model_copy(update={"openai_backfill": backfill})
    at = settings.kafka_settings(embedded) if embedded else cluster(settings)
    bars = _Bars() if err_console.is_terminal and (backfill or once) else None
    try:
        if not once:
            component.run(settings, at, ops_port=ops_port, progress=bars)
            return
        result = component.run_once(settings, at, bars, resource or ())
    finally:
        if bars:
            bars.stop()
    if result is not None:
        _report(result, as_json=as_json)


def _report(result: PollResult, *, as_json: bool) -> None:
    """Report the result of one round. The exit code is 1 if a resource failed."""
    failures = {
        name: {"reason": failure.why.value, "message": failure.message, "hint": failure.hint}
        for name, failure in sorted(result.failures.items())
    }
    counts = {"published": result.published, "restated": result.restated, "unchanged": result.unchanged}
    if as_json:
        emit_json(counts | {"failures": failures})
    else:
        typer.echo(
            f"{result.published} buckets published ({result.restated} of them restated), {result.unchanged} unchanged,"
            f" {len(failures)} resources failed"
        )
        for name, failure in failures.items():
            err_console.print(f"[bold red]{name}[/]: {failure['message']}", soft_wrap=True)
            err_console.print(f"  {failure['hint']}", style="dim", soft_wrap=True)
    if failures:
        raise typer.Exit(1)


class _Bars:
    """A progress bar for each resource, counting queries, while there is more to do than in a usual round."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress: Progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=err_console, transient=True,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def planned(self, resource: str, spans: int) -> None:
        if resource in self._tasks:
            # Later rounds are short and need no progress bar.
            self._progress.remove_task(self._tasks.pop(resource))
            self.stop()
            return
        self._tasks[resource] = self._progress.add_task(resource, total=spans)

    def done(self, resource: str) -> None:
        if resource in self._tasks:
            self._progress.advance(self._tasks[resource])

    def failed(self, resource: str, failure: PollError) -> None:
        if resource in self._tasks:
            self._progress.update(self._tasks[resource], description=f"{resource} [red]{failure.why.value}[/]")

    def stop(self) -> None:
        self._progress.stop()


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("poller")(poller)
