"""`tallystream schemas`: the schemas of the topics, for their consumers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tallystream.cli.options import JsonOption, emit_json
from tallystream.cli.output.consoles import console
from tallystream.schemas.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="schemas")(schemas)


def schemas(
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="DIR", help="Write a JSON Schema file for each kind of message into DIR."),
    ] = None,
    asyncapi: Annotated[
        Path | None, typer.Option("--asyncapi", metavar="FILE", help="Write the AsyncAPI 3 document of the topics.")
    ] = None,
    topics: Annotated[
        Path | None, typer.Option("--topics", metavar="FILE", help="Write the page on the topics, as Markdown.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the kinds of messages on the topics, or write their JSON Schemas for your own consumers.

    A message's header `schema` names its kind and version, such as `session-hour-cost/1`. A version stays readable
    forever: fields are only added, and added fields are optional.

        tallystream schemas --write ./tallystream-schemas
    """
    from tallystream.schemas.catalogue import CATALOGUE

    if write is not None:
        for schema in CATALOGUE.values():
            _write(write / schema.file, schema.rendered(), write)
    if asyncapi is not None or topics is not None:
        from tallystream.reference import topics as reference

        if asyncapi is not None:
            _write(asyncapi, reference.asyncapi_yaml().encode(), asyncapi)
        if topics is not None:
            _write(topics, reference.markdown().encode(), topics)
    if as_json:
        emit_json(
            [
                {
                    "schema": schema.header.decode(),
                    "topic": schema.topic,
                    "key": schema.key,
                    "value": schema.json_schema(),
                }
                for schema in CATALOGUE.values()
            ]
        )
    elif write is not None:
        console.print(f"{len(CATALOGUE)} JSON Schemas written to {write}", markup=False)
    elif asyncapi is None and topics is None:
        _print_table()


def _write(path: Path, content: bytes, named: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as exc:
        raise UsageError(f"cannot write to {named}: {exc.strerror}", "name a path that you may write to") from exc


def _print_table() -> None:
    from rich.table import Table

    from tallystream.schemas.catalogue import CATALOGUE

    table = Table("schema", "topic", "key", box=None, pad_edge=False, header_style="bold")
    for schema in CATALOGUE.values():
        table.add_row(schema.header.decode(), schema.topic, schema.key)
    console.print(table)
