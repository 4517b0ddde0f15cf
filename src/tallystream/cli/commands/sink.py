"""`tallystream sink`: rows and records into Port's catalogue."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tallystream.cli.commands.components import Embedded, OpsPort
from tallystream.cli.options import DataDir, JsonOption, KafkaOption, cluster, emit_json, err_console, settings_from

if TYPE_CHECKING:
    from tallystream.agents.port_sink import SinkResult


def sink(
    once: Annotated[
        bool,
        typer.Option("--once", help="Write everything there is and exit: 1 when something was left out. For cron."),
    ] = False,
    ops_port: OpsPort = 0,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
    embedded: Embedded = None,
    as_json: JsonOption = False,
) -> None:
    """Keep Port's catalogue up to date. Run several: one writes, the others stand by.

    Needs TALLYSTREAM_PORT_CLIENT_ID and TALLYSTREAM_PORT_CLIENT_SECRET. Creates blueprints that Port does not have;
    what it writes is decided by the mapping (`tallystream port mapping show`). Deletes nothing unless
    TALLYSTREAM_PORT_RETENTION says so.
    """
    from tallystream.components import sink as component

    settings = settings_from(data_dir, kafka)
    at = settings.kafka_settings(embedded) if embedded else cluster(settings)
    if not once:
        component.run(settings, at, ops_port=ops_port)
        return
    result = component.run_once(settings, at)
    if result is not None:
        _report(result, as_json=as_json)


def _report(result: SinkResult, *, as_json: bool) -> None:
    """Say what came of one pass over everything; whatever was left out makes the exit code 1."""
    if as_json:
        emit_json(asdict(result))
    else:
        typer.echo(
            f"{result.written} entities written, {result.refused} refused, {result.waiting} wait for another attempt;"
            f" {result.unmapped} records could not be mapped"
        )
        for kind, missing in result.stopped.items():
            err_console.print(f"[bold red]{kind}[/] was not written: Port has no blueprint {', '.join(missing)}")
            err_console.print(
                "  `tallystream port blueprints apply` creates ours; others are yours to make", style="dim"
            )
        for kind in sorted(result.unmatched()):
            err_console.print(f"[bold yellow]{kind}[/]: the mapping makes nothing of {result.records[kind]} records")
        if result.refused or result.unmapped:
            err_console.print("  `tallystream deadletters list` shows what was refused, and why", style="dim")
    if not result.whole:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sink")(sink)
