"""`tallystream spool list|recover`: shows the spool files of gateways, and recovers those that were set aside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tallystream.cli.options import DataDir, JsonOption, emit_json, settings_from
from tallystream.cli.output.consoles import console
from tallystream.schemas.errors import UsageError

if TYPE_CHECKING:
    from tallystream.streams.gateway.spool.inventory import Listed

STATES = {
    "ours": "of this prefix: drained by a gateway of its cluster",
    "in use": "a gateway has it open",
    "foreign": "of another prefix or cluster: kept, never sent",
    "damaged": "set aside: SQLite calls it damaged",
    "unreadable": "cannot be opened now",
}
app = typer.Typer(
    no_args_is_help=True, help="Show and recover the messages that gateways keep on disk while Kafka is unavailable."
)


@app.command("list")
def list_(json: JsonOption = False, data_dir: DataDir = None) -> None:
    """Show the spool files of this data directory: their deployment, contents and state."""
    from tallystream.streams.gateway.spool.inventory import inventory

    settings = settings_from(data_dir, None)
    found = inventory(settings.data_dir / "gateway", settings.prefix)
    if json:
        emit_json({"spools": [_document(one) for one in found]})
        return
    if not found:
        console.print(f"No spool files in {settings.data_dir / 'gateway'}.")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("FILE", "STATE", "PREFIX", "CLUSTER", "MESSAGES", "QUARANTINE"):
        table.add_column(name, justify="right" if name in ("MESSAGES", "QUARANTINE") else "left", no_wrap=True)
    for one in found:
        numbers = [f"{one.messages:,}", f"{one.held:,}"] if one.messages is not None else ["?", "?"]
        cluster = one.cluster_id or ",".join(one.addresses)
        table.add_row(*map(Text, (one.path.name, one.state, one.prefix, cluster, *numbers)))
    console.print(table)
    for state in dict.fromkeys(one.state for one in found):
        console.print(f"{state}: {STATES[state]}", style="dim")


@app.command()
def recover(
    file: Annotated[str, typer.Argument(help="A file that `spool list` shows as damaged or foreign.")],
    json: JsonOption = False,
    data_dir: DataDir = None,
) -> None:
    """Bring the messages of a damaged or foreign spool file into this deployment.

    Everything readable is copied to a new spool, which a running gateway opens within 30 s, or else the next one that
    starts. Sending a message twice is harmless, because its events have ids. The file itself is renamed
    (`.recovered-TIME`) and never deleted. Messages of another prefix are sent to this prefix's topics.
    """
    from tallystream.streams.gateway.message import partition_counts
    from tallystream.streams.gateway.spool.inventory import recover as bring_back

    settings = settings_from(data_dir, None)
    directory = settings.data_dir / "gateway"
    if Path(file).name != file and Path(file).parent.resolve() != directory.resolve():
        raise UsageError(f"{file} is not in {directory}", "`tallystream spool list` shows what is there")
    done = bring_back(directory, Path(file).name, settings.prefix, frozenset(partition_counts(settings.topics())))
    if json:
        emit_json(
            {"messages": done.messages, "quarantine": done.held, "complete": done.complete, "kept": str(done.kept)}
        )
        return
    console.print(f"{done.messages:,} messages and {done.held:,} requests in quarantine are in the spool again.")
    if not done.complete:
        console.print("Parts of the file could not be read, so it is not known what is missing.", style="yellow")
    console.print(Text(f"The file is kept as {done.kept}.", style="dim"), soft_wrap=True)


def _document(one: Listed) -> dict[str, Any]:
    return {
        "file": str(one.path),
        "state": one.state,
        "prefix": one.prefix,
        "cluster_id": one.cluster_id,
        "addresses": list(one.addresses),
        "messages": one.messages,
        "quarantine": one.held,
        "bytes": one.bytes,
    }


def register(root: typer.Typer) -> None:
    """Add `spool`."""
    root.add_typer(app, name="spool")
