"""`tallystream openai`: inspect OpenAI's endpoints before polling them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tallystream.cli.options import DataDir, JsonOption, emit_json, settings_from
from tallystream.cli.output.consoles import console
from tallystream.schemas.errors import UsageError

if TYPE_CHECKING:
    from rich.tree import Tree

    from tallystream.explore.endpoint import Explored
    from tallystream.explore.shapes import Shape

app = typer.Typer(no_args_is_help=True, help="Inspect OpenAI's endpoints before polling them.")


@app.command("explore")
def explore(
    path: Annotated[str, typer.Argument(help="Path below the base URL, such as /organization/costs.")],
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JQ",
            help="Query parameter, as JQ: limit=5, bucket_width='\"1d\"', start_time='$from'. Repeat it.",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Kind of key: api, admin or session.", show_default="the one that the path needs")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="JQ", help="JQ path of the rows.", show_default="detected")
    ] = None,
    blueprint: Annotated[str | None, typer.Option(metavar="ID", help="Identifier of the blueprint.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory to write the files to.")] = Path("explored"),
    save_sample: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the rows to this file, masked, as mappings see them, for `port mapping test`."
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: JsonOption = False,
) -> None:
    """Request an endpoint once, show the shape of its answer, and write a blueprint, mapping and resource file for it.

    Parameters may use `now`, and `$from` and `$to` for the last seven days. Nothing is polled or sent to Port yet.
    """
    from tallystream.agents.port_sink.pipeline.samples import write_sample
    from tallystream.cli.output.progress import run
    from tallystream.components.poller import client_config, tokens
    from tallystream.explore.endpoint import endpoint, files
    from tallystream.explore.endpoint import explore as ask
    from tallystream.explore.install import install_lines

    if key not in (None, "api", "admin", "session"):
        raise UsageError(f"{key!r} is not a valid kind of key", "kinds: api, admin, session")
    settings = settings_from(data_dir)
    asked = endpoint(path, dict(_named(one) for one in param or ()), key, data)
    found = run(ask(client_config(settings), tokens(settings), asked, blueprint))
    written = files(found)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in written.items():
            (out / name).write_text(text)
        if save_sample is not None:
            write_sample(save_sample, found.rows)
    except OSError as exc:
        raise UsageError(
            f"{exc.filename} cannot be written: {exc.strerror}", "name another directory with --out"
        ) from exc
    install = "\n".join(install_lines(found, out.resolve(), settings, data_dir))
    if as_json:
        emit_json(
            {
                "path": path,
                "rows": len(found.rows),
                "data": found.data,
                "shape": _plain(found.rows_shape),
                "blueprint": found.draft.blueprint,
                "mapping": found.draft.mapping,
                "files": {name: str(out / name) for name in written},
                "install": install,
            }
        )
        return
    _show(found, out, install)


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{text!r} is not a valid parameter", "use --param name=expression")
    return name, value


def _show(found: Explored, out: Path, install: str) -> None:
    from rich.markup import escape
    from rich.tree import Tree

    tree = Tree(f"[bold]{escape(found.endpoint.path)}[/]")
    _grow(tree, found.answer_shape)
    console.print(tree)
    console.print(f"\n{len(found.rows)} rows at [bold]{escape(found.data)}[/]")
    told = ", ".join(found.draft.identity) or "only the whole row; name better fields in mapping.yaml"
    console.print(f"identified by: {escape(told)}")
    console.print(f"\nwritten to {escape(str(out))}: blueprint.json, mapping.yaml, resources.toml\n")
    console.print(escape(install), soft_wrap=True)


def _grow(tree: Tree, shape: Shape) -> None:
    """Add what is below a node: fields of objects, and the items of lists."""
    from rich.markup import escape

    from tallystream.explore.shapes import describe

    for name, inner in shape.fields.items():
        share = "" if shape.always(name) or inner.seen == shape.kinds["object"] else ", sometimes absent"
        branch = tree.add(f"{escape(name)}: [cyan]{describe(inner)}[/][dim]{share}[/]")
        _grow(branch, inner)
    if shape.items is not None and shape.items.seen:
        if shape.items.fields:
            _grow(tree.add(f"[dim]each of {shape.items.seen}[/]"), shape.items)
        else:
            tree.add(f"[dim]each:[/] [cyan]{describe(shape.items)}[/]")


def _plain(shape: Shape) -> dict[str, object]:
    from tallystream.explore.shapes import describe

    found: dict[str, object] = {"type": describe(shape), "seen": shape.seen}
    if shape.fields:
        found["fields"] = {name: _plain(inner) for name, inner in shape.fields.items()}
    if shape.items is not None and shape.items.seen:
        found["items"] = _plain(shape.items)
    return found


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="openai")
