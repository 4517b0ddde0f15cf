"""`tallystream sink`: writes rows and records to Port's catalogue."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tallystream.cli.commands.components import Embedded, OpsPort
from tallystream.cli.options import DataDir, JsonOption, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.consoles import err_console

if TYPE_CHECKING:
    from tallystream.agents.port_sink import SinkResult


def sink(
    once: Annotated[
        bool,
        typer.Option("--once", help="Write everything and exit, for cron. Exit code 1: something was left out."),
    ] = False,
    ops_port: OpsPort = 0,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
    embedded: Embedded = None,
    as_json: JsonOption = False,
) -> None:
    """Keep Port's catalogue up to date. You may run several: one writes, the others stand by.

    Needs TALLYSTREAM_PORT_CLIENT_ID and TALLYSTREAM_PORT_CLIENT_SECRET. Creates blueprints that are missing in Port.
    The mapping decides what is written (`tallystream port mapping show`). Nothing is deleted unless
    TALLYSTREAM_PORT_RETENTION is set.
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
    """Report the result of one full pass. The exit code is 1 if anything was left out."""
    if as_json:
        emit_json(asdict(result))
    else:
        typer.echo(
            f"{result.written} entities written, {result.refused} refused, {result.waiting} wait for another attempt;"
            f" {result.unmapped} records could not be mapped"
        )
        for kind, missing in result.stopped.items():
            names = ", ".join(missing)
            err_console.print(f"[bold red]{kind}[/]: Port has no blueprint {names}, so nothing was written to it")
            err_console.print(
                "  `tallystream port blueprints apply` creates ours, `... apply FILE` those of a JSON file", style="dim"
            )
        for kind in sorted(result.unmatched()):
            err_console.print(
                f"[bold yellow]{kind}[/]: the mapping made no entity from any of {result.records[kind]} records"
            )
        if result.refused or result.unmapped:
            err_console.print("  `tallystream deadletters list` shows what was refused, and why", style="dim")
    if not result.whole:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sink")(sink)
