"""The command line.

Each group of commands is a module with `register(app)`. These modules import slow dependencies (Kafka clients, pydantic
models, settings) inside their commands, so that `--help` answers at once. A test checks this.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from tallystream import __version__
from tallystream.cli.options import fail
from tallystream.cli.output import encoding
from tallystream.schemas.compiled import COMPILED
from tallystream.schemas.errors import TallystreamError

__all__ = ["build", "main"]

MODULES = (
    "lifecycle",
    "demo",
    "connections",
    "cost",
    "reconcile",
    "coverage",
    "accounts",
    "prices",
    "reprice",
    "ledger",
    "wait",
    "deadletters",
    "doctor",
    "spool",
    "schemas",
    "sizing",
    "simulate",
    "sandbox",
    "openai",
    "poller",
    "sink",
    "port",
    "components",
    "console",
)
"""Modules of this package that register commands, in the order `--help` lists them."""

PANELS = {
    "On this machine": ("up", "status", "doctor", "down", "demo", "spool"),
    "Every day": (
        "connections",
        "cost",
        "reconcile",
        "coverage",
        "accounts",
        "prices",
        "reprice",
        "sql",
        "export",
        "wait",
        "deadletters",
        "schemas",
    ),
    "Trying it out": ("simulate", "sandbox", "sizing"),
    "OpenAI and Port": ("openai", "port"),
    "One component each, for compose and Kubernetes": (
        "gateway",
        "worker",
        "poller",
        "sink",
        "exporter",
        "ledger",
        "console",
        "kafka",
    ),
}

HELP = """
Exact, live cost tables from the telemetry of AI coding agents.

Three steps: start it, point an agent at it, read the table.

    tallystream up
    tallystream connections create codex --name laptop
    tallystream cost sessions

Commands take --data-dir (default: the one of `up`) or --kafka HOST:PORT. Everything else is set by TALLYSTREAM_*
variables or by the TOML file that TALLYSTREAM_CONFIG names. --json prints JSON for programs.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 unreachable or timed out, 4 a check found a difference.
"""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tallystream {__version__}{' (compiled)' if COMPILED else ''}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - the option's callback has answered already
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def build() -> typer.Typer:
    """Return the application with all commands."""
    app = typer.Typer(
        name="tallystream",
        help=HELP,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for name in MODULES:
        module = importlib.import_module(f"{__name__}.commands.{name}")
        module.register(app)
    _plain_flags(app)
    panels = {name: panel for panel, names in PANELS.items() for name in names}
    for command in app.registered_commands:
        command.rich_help_panel = panels.get(command.name or "", "Commands")
    for group in app.registered_groups:
        group.rich_help_panel = panels.get(group.name or "", "Commands")
    return app


class _Command(TyperCommand):
    """A command whose help says `--json`, not `--json <bool>`: a flag takes no value."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]  # the library's types are private
        """Return the parameters, `--help` included."""
        return _without_values(super().get_params(ctx))


class _Group(TyperGroup):
    """The same as `_Command`, for a group of commands."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]  # the library's types are private
        """Return the parameters, `--help` included."""
        return _without_values(super().get_params(ctx))


def _without_values(params: Iterable[Any]) -> list[Any]:
    found = list(params)
    for param in found:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return found


def _plain_flags(app: typer.Typer) -> None:
    """Make the help of every command show its options as `_Command` does."""
    app.info.cls = _Group
    for command in app.registered_commands:
        command.cls = _Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _plain_flags(group.typer_instance)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit the process.

    Every error is one line on stderr with a next step, or with `--json` one document {code, message, hint}.
    A traceback is printed only when TALLYSTREAM_TRACEBACK is set. A component writes its traceback to its log.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in args
    encoding.adapt()
    try:
        code = build()(args=args, prog_name="tallystream", standalone_mode=False)
    except TallystreamError as exc:
        fail(exc.code, exc.message, exc.hint, as_json=as_json)
        code = exc.exit_code
    except TyperException as exc:
        code = _usage(exc, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted", "interrupted", "", as_json=as_json)
        code = 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`), so there is nothing to report. stdout must not be flushed again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as exc:  # noqa: BLE001 - the last resort: users get one line instead of a traceback
        code = _unforeseen(exc, as_json=as_json)
    sys.exit(code if isinstance(code, int) else 0)


def _unforeseen(exc: Exception, *, as_json: bool) -> int:
    """Report an error that nothing has handled: the disk's, or a bug of ours."""
    from tallystream.streams.local_disk import disk_error

    disk = disk_error(exc)
    if disk is not None:
        fail(disk.code, disk.message, disk.hint, as_json=as_json)
    else:
        fail(
            "internal",
            f"{type(exc).__name__}: {exc}".strip().rstrip(":"),
            "this is a bug: run the command again with TALLYSTREAM_TRACEBACK=1 and report its output",
            as_json=as_json,
            defect=exc,
        )
    return 1


def _usage(exc: TyperException, *, as_json: bool) -> int:
    """Report what the parser did not accept. If a required subcommand is missing, show the help instead."""
    context: typer.Context | None = getattr(exc, "ctx", None)
    if type(exc).__name__ == "NoArgsIsHelpError":
        return 2
    path = context.command_path if context is not None else "tallystream"
    fail("usage", exc.format_message().rstrip("."), f"`{path} --help` shows the arguments and options", as_json=as_json)
    return exc.exit_code
