"""`tallystream port blueprints | mapping | resync`: inspects and sets up Port's catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallystream.cli.options import DataDir, JsonOption, KafkaOption, cluster, console, emit_json, settings_from
from tallystream.schemas.errors import MismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tallystream.agents.port_sink.blueprints import Blueprint
    from tallystream.agents.port_sink.blueprints.sync import BlueprintDifference
    from tallystream.settings.settings import Settings

HELP = """
Manage Port's catalogue: blueprints, mappings, and a full resync.

Commands that talk to Port need TALLYSTREAM_PORT_CLIENT_ID and TALLYSTREAM_PORT_CLIENT_SECRET, and for accounts in the
US TALLYSTREAM_PORT_BASE_URL=https://api.us.getport.io.
"""
BLUEPRINTS = "Manage the blueprints of our entities: those of Port's page on Codex and OpenAI, and our own."
MAPPING = "Show and test the mapping of records to entities, which is YAML in Port's format, with JQ."


def list_(json: JsonOption = False, data_dir: DataDir = None) -> None:
    """Print our blueprints."""
    from rich import box
    from rich.table import Table

    ours = _ours(settings_from(data_dir))
    if json:
        emit_json(list(ours.values()))
        return
    table = Table("Blueprint", "Title", "Properties", "Relates to", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, one in ours.items():
        relations = ", ".join(f"{key} -> {rule['target']}" for key, rule in one["relations"].items())
        table.add_row(name, one["title"], ", ".join(one["schema"]["properties"]), relations)
    console.print(table)


def diff(json: JsonOption = False, data_dir: DataDir = None) -> None:
    """Compare our blueprints with Port's. Exits with 4 if applying ours would change something.

    Properties that a blueprint has only in Port are your own and are ignored.
    """
    from tallystream.agents.port_sink.blueprints import sync

    settings = settings_from(data_dir)
    ours = _ours(settings)
    found = sync.differences(ours, _with_client(settings, lambda client: sync.fetch(client, ours)))
    _show(found, json=json, applied=False)
    if found:
        raise typer.Exit(MismatchError.exit_code)


def apply(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    json: JsonOption = False,
    data_dir: DataDir = None,
) -> None:
    """Apply our blueprints to Port: creates what is missing, changes what differs, removes nothing."""
    from tallystream.agents.port_sink.blueprints import sync
    from tallystream.agents.port_sink.port.client import PortClient

    settings = settings_from(data_dir)
    ours = _ours(settings)
    theirs = _with_client(settings, lambda client: sync.fetch(client, ours))
    found = sync.differences(ours, theirs)
    if found and not (yes or json):
        _show(found, json=False, applied=False)
        typer.confirm("Change this in Port?", abort=True)

    async def change(client: PortClient) -> list[BlueprintDifference]:
        return await sync.apply(client, ours, theirs)

    if found:
        found = _with_client(settings, change)
    _show(found, json=json, applied=True)


def show() -> None:
    """Print the default mapping. To use a changed copy, set TALLYSTREAM_PORT_MAPPING."""
    from tallystream.agents.port_sink.mapping import default_text

    typer.echo(default_text(), nl=False)


def try_mapping(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The mapping file; `-` for the default mapping.")],
    sample: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            metavar="SAMPLE",
            help="JSON to map: an endpoint's answer, a list of records, or one record; `-` reads stdin.",
        ),
    ],
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND", help="Kind of the sample; needed if the mapping has several."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the entities that a mapping makes of a sample, and its repairs. Exits with 4 if a record fails.

    Get samples with `tallystream openai explore PATH --save-sample FILE`, or let the sink save its own with
    TALLYSTREAM_PORT_SAMPLES=true.
    """
    from tallystream.cli.commands.port_test import run, show

    outcome = run(file, sample, kind)
    if json:
        emit_json(outcome.document())
    else:
        show(outcome)
    if outcome.failures:
        raise typer.Exit(MismatchError.exit_code)


def resync(
    blueprint: Annotated[
        str | None, typer.Option("--blueprint", metavar="ID", help="Only entities of this blueprint.")
    ] = None,
    json: JsonOption = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Forget what was sent, so that the sink sends everything again. Use it after changes to entities in Port."""
    from tallystream.agents.port_sink.state.reset import forget
    from tallystream.cli.output.progress import run

    settings = settings_from(data_dir, kafka)
    count = run(forget(cluster(settings), settings.topics(), blueprint))
    if json:
        emit_json({"forgotten": count})
        return
    console.print(f"{count:,} entities forgotten. The sink sends them again now, or when it is started.")


def register(app: typer.Typer) -> None:
    """Add `port` and its commands."""
    group = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    blueprints = typer.Typer(help=BLUEPRINTS, no_args_is_help=True)
    blueprints.command("list")(list_)
    blueprints.command("diff")(diff)
    blueprints.command("apply")(apply)
    mapping = typer.Typer(help=MAPPING, no_args_is_help=True)
    mapping.command("show")(show)
    mapping.command("test")(try_mapping)
    group.add_typer(blueprints, name="blueprints")
    group.add_typer(mapping, name="mapping")
    group.command("resync")(resync)
    app.add_typer(group, name="port")


def _ours(settings: Settings) -> dict[str, Blueprint]:
    from tallystream.agents.port_sink import blueprints
    from tallystream.components.sink import read_mapper

    named = read_mapper(settings).blueprints() if settings.port_mapping is not None else set()
    return blueprints.load(session_hours=settings.port_session_hours or blueprints.SESSION_HOUR in named)


def _with_client(settings: Settings, work: Any) -> Any:
    """Run `work(client)` with a client for Port's API."""
    from tallystream.agents.port_sink.port.client import PortClient
    from tallystream.cli.output.progress import run
    from tallystream.components.sink import client_config

    async def working() -> Any:
        async with PortClient(client_config(settings)) as client:
            return await work(client)

    return run(working())


def _show(found: Sequence[BlueprintDifference], *, json: bool, applied: bool) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if json:
        emit_json(
            {
                "applied": applied,
                "differences": [
                    {"blueprint": one.blueprint, "what": one.what, "path": one.path, "theirs": one.theirs,
                     "ours": None if one.what == "missing" else one.ours}
                    for one in found
                ],
            }
        )  # fmt: skip
        return
    if not found:
        console.print("Port's blueprints include everything that ours define.")
        return
    styles = {"missing": "red", "added": "green", "changed": "yellow"}
    table = Table("Blueprint", "", "Where", "In Port", "Ours", box=box.SIMPLE_HEAD, pad_edge=False)
    for one in found:
        ours = "the whole blueprint" if one.what == "missing" else _text(one.ours)
        theirs = "" if one.what in ("missing", "added") else _text(one.theirs)
        table.add_row(one.blueprint, Text(one.what, style=styles[one.what]), one.path, theirs, ours)
    console.print(table)
    if applied:
        console.print("[green]applied[/]")


def _text(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
