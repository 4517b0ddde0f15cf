"""`tallystream port apply | blueprints | mapping | resync`: inspects and sets up Port's catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tallystream.cli.commands import port_blueprints
from tallystream.cli.options import DataDir, JsonOption, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.consoles import console
from tallystream.schemas.errors import MismatchError

HELP = """
Manage Port's catalogue: blueprints, owners, a scorecard, a dashboard, mappings, and a full resync.

Commands that talk to Port need TALLYSTREAM_PORT_CLIENT_ID and TALLYSTREAM_PORT_CLIENT_SECRET, and for accounts in the
US TALLYSTREAM_PORT_BASE_URL=https://api.us.getport.io.
"""
MAPPING = "Show and test the mapping of records to entities, which is YAML in Port's format, with JQ."


def show(
    merged: Annotated[
        bool,
        typer.Option("--merged", help="Print the mapping in use: all files of TALLYSTREAM_PORT_MAPPING in one."),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Print the default mapping. To use a changed copy, set TALLYSTREAM_PORT_MAPPING.

    TALLYSTREAM_PORT_MAPPING=default,FILE adds a mapping to the default one.
    """
    from tallystream.agents.port_sink.mapping import default_text

    if not merged:
        typer.echo(default_text(), nl=False)
        return
    import yaml

    from tallystream.components.sink import read_mapper

    document = read_mapper(settings_from(data_dir)).document()
    typer.echo(yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True), nl=False)


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
    data_dir: DataDir = None,
) -> None:
    """Show the entities that a mapping makes of a sample, and its repairs. Exits with 4 if a record fails.

    Get samples with `tallystream openai explore PATH --save-sample FILE`, or let the sink save its own with
    TALLYSTREAM_PORT_SAMPLES=true.
    """
    from tallystream.cli.commands.port_test import run, show
    from tallystream.components.poller import declared_resources

    outcome = run(file, sample, kind, declared_resources(settings_from(data_dir)).resources)
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


def apply_all(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only show the differences; exits with 4 if there are any.")
    ] = False,
    json: JsonOption = False,
    data_dir: DataDir = None,
) -> None:
    """Apply our blueprints, spend per team, user and service, a scorecard of bills, and a dashboard to Port.

    Shows what would change and asks. Removes nothing, and keeps what you added. Teams, users and services need their
    blueprints in Port; what an account does not have is left out. Run it again after an upgrade.
    """
    from tallystream.agents.port_sink.catalogue import apply as catalogue
    from tallystream.cli.output.port_client import with_client

    settings = settings_from(data_dir)
    ours = port_blueprints.ours(settings)
    todo = with_client(settings, lambda client: catalogue.plan(client, ours, ownership=settings.port_ownership))
    found = todo.differences
    if not check:
        port_blueprints.confirm(found, yes=yes, json=json, shows="tallystream port apply --check --json")
        if found:
            with_client(settings, lambda client: catalogue.apply(client, todo))
    port_blueprints.show(found, json=json, applied=not check)
    if todo.left_out and not json:
        console.print(f"Left out, because Port has no such blueprint: {', '.join(todo.left_out)}", markup=False)
    if check and found:
        raise typer.Exit(MismatchError.exit_code)


def register(app: typer.Typer) -> None:
    """Add `port` and its commands."""
    group = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    mapping = typer.Typer(help=MAPPING, no_args_is_help=True)
    mapping.command("show")(show)
    mapping.command("test")(try_mapping)
    group.add_typer(port_blueprints.group(), name="blueprints")
    group.add_typer(mapping, name="mapping")
    group.command("apply")(apply_all)
    group.command("resync")(resync)
    app.add_typer(group, name="port")
