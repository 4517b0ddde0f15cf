"""`tallystream port blueprints list | diff | apply`: our blueprints, or those of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallystream.cli.options import DataDir, JsonOption, emit_json, settings_from
from tallystream.cli.output.consoles import console
from tallystream.cli.output.port_client import with_client
from tallystream.schemas.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tallystream.agents.port_sink.blueprints import Blueprint
    from tallystream.agents.port_sink.blueprints.sync import BlueprintDifference
    from tallystream.agents.port_sink.port.client import PortClient
    from tallystream.settings.settings import Settings

HELP = "Manage the blueprints of our entities, or of your own from JSON files."
LINES = 3
"""Lines that a value may take on the screen."""
Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE",
        help="JSON files with a blueprint or a list of them, in the shape of Port's API.",
        show_default="our blueprints",
    ),
]


def list_(json: JsonOption = False, data_dir: DataDir = None) -> None:
    """Print our blueprints."""
    from rich import box
    from rich.table import Table

    own = ours(settings_from(data_dir))
    if json:
        emit_json(list(own.values()))
        return
    table = Table("Blueprint", "Title", "Properties", "Relates to", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, one in own.items():
        relations = ", ".join(f"{key} -> {rule['target']}" for key, rule in one["relations"].items())
        table.add_row(name, one["title"], ", ".join(one["schema"]["properties"]), relations)
    console.print(table)


def diff(files: Files = None, json: JsonOption = False, data_dir: DataDir = None) -> None:
    """Compare our blueprints, or those of files, with Port's. Exits with 4 if applying them would change something.

    Properties that a blueprint has only in Port are your own and are ignored.
    """
    from tallystream.agents.port_sink.blueprints import sync

    settings = settings_from(data_dir)
    wanted, theirs = _compared(settings, files)
    found = sync.differences(wanted, theirs)
    show(found, json=json, applied=False)
    if found:
        raise typer.Exit(MismatchError.exit_code)


def apply(
    files: Files = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    json: JsonOption = False,
    data_dir: DataDir = None,
) -> None:
    """Apply our blueprints, or those of files, to Port: creates missing ones, changes what differs, removes nothing."""
    from tallystream.agents.port_sink.blueprints import sync

    settings = settings_from(data_dir)
    wanted, theirs = _compared(settings, files)
    found = sync.differences(wanted, theirs)
    confirm(found, yes=yes, json=json, shows="tallystream port blueprints diff --json")

    async def change(client: PortClient) -> list[BlueprintDifference]:
        return await sync.apply(client, wanted, theirs)

    if found:
        found = with_client(settings, change)
    show(found, json=json, applied=True)


def group() -> typer.Typer:
    """Return the commands."""
    blueprints = typer.Typer(help=HELP, no_args_is_help=True)
    blueprints.command("list")(list_)
    blueprints.command("diff")(diff)
    blueprints.command("apply")(apply)
    return blueprints


def confirm(found: Sequence[BlueprintDifference], *, yes: bool, json: bool, shows: str) -> None:
    """Show what would be changed and ask, unless there is nothing or `yes`.

    Raises:
        UsageError: with `json` nobody can be asked; `shows` is the command that only shows.

    """
    if not found or yes:
        return
    if json:
        raise UsageError(
            f"{len(found)} differences would be applied, and with --json nobody is asked",
            f"add --yes; `{shows}` shows them",
        )
    show(found, json=False, applied=False)
    typer.confirm("Change this in Port?", abort=True)


def ours(settings: Settings) -> dict[str, Blueprint]:
    """Return our blueprints as the settings have them."""
    from tallystream.agents.port_sink import blueprints
    from tallystream.components.sink import read_mapper

    named = read_mapper(settings).blueprints() if settings.port_mapping is not None else set()
    session_hours = settings.port_session_hours or blueprints.SESSION_HOUR in named
    return blueprints.load(session_hours=session_hours, ownership=settings.port_ownership)


def _compared(settings: Settings, files: Sequence[Path] | None) -> tuple[dict[str, Blueprint], dict[str, Blueprint]]:
    """Return the blueprints of the files or ours, as they fit this account, and what Port has of them."""
    from tallystream.agents.port_sink.blueprints import sync

    wanted = _wanted(settings, files)

    async def ask(client: PortClient) -> tuple[dict[str, Blueprint], dict[str, Blueprint]]:
        return await sync.fitting(client, wanted), await sync.fetch(client, wanted)

    return with_client(settings, ask)


def _wanted(settings: Settings, files: Sequence[Path] | None) -> dict[str, Blueprint]:
    """Return the blueprints of the files, each after those it relates to; without files, ours."""
    from tallystream.agents.port_sink import blueprints

    if not files:
        return ours(settings)
    return blueprints.ordered(one for path in files for one in _read(path))


def _read(path: Path) -> list[Blueprint]:
    import json

    try:
        given = json.loads(path.read_text())
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}", "name a JSON file with a blueprint") from exc
    except ValueError as exc:
        raise UsageError(f"{path} is not JSON: {exc}", "Port shows a blueprint's JSON with 'Edit JSON'") from None
    found = given if isinstance(given, list) else [given]
    for one in found:
        if not isinstance(one, dict) or not isinstance(one.get("identifier"), str):
            raise UsageError(f"{path} has something that is not a blueprint", "a blueprint has an `identifier`")
    return found


def show(found: Sequence[BlueprintDifference], *, json: bool, applied: bool) -> None:
    """Print differences."""
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
        console.print("Port includes everything that these define.")
        return
    styles = {"missing": "red", "added": "green", "changed": "yellow"}
    last = ""
    for one in found:
        if one.blueprint != last:
            console.print(Text(one.blueprint, style="bold"))
            last = one.blueprint
        where = "in Port" if one.what == "missing" else one.path
        console.print(Text.assemble("  ", (one.what, styles[one.what]), f" {where}"), soft_wrap=True)
        if one.what == "changed":
            _value("in Port:", one.theirs)
        if one.what != "missing":
            _value("ours:", one.ours)
    if applied:
        console.print("[green]applied[/]")


def _value(label: str, value: Any) -> None:
    """Print a value in at most three lines; `--json` has all of it."""
    import json
    import textwrap

    head = f"    {label:<9}"
    text = json.dumps(value, ensure_ascii=False)
    lines = textwrap.wrap(text, max(20, console.width - len(head)), max_lines=LINES, placeholder=" …")
    for line in lines:
        console.print(head + line, markup=False, highlight=True, soft_wrap=True)
        head = " " * len(head)
