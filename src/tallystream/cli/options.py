"""Options shared by the commands, settings, the cluster to use, and output of messages and errors.

No slow module is imported at the top, because every start imports this one, even for `--help`; and no large one, such
as rich, because a component keeps what has been imported.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallystream.cli.output.text import escape_json, visible_lines
from tallystream.schemas.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    from tallystream.schemas.run import Run
    from tallystream.settings.settings import Settings
    from tallystream.streams.kafka.settings import KafkaSettings

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="State of this machine: embedded Kafka, stores, spools, run.json. [env: TALLYSTREAM_DATA_DIR]",
        show_default="~/.local/share/tallystream",
    ),
]
KafkaOption = Annotated[
    str | None,
    typer.Option(
        "--kafka",
        metavar="HOST:PORT",
        help="A Kafka cluster to use instead of the embedded one. [env: TALLYSTREAM_KAFKA]",
        show_default="the one `tallystream up` runs",
    ),
]
GatewayOps = Annotated[
    list[str] | None,
    typer.Option(
        "--gateway-ops",
        metavar="URL",
        help="Ops URL of a gateway on another machine; may be repeated.",
        show_default="those of run.json",
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document; errors are {code, message, hint} on stderr."),
]


def settings_from(data_dir: Path | None = None, kafka: str | None = None) -> Settings:
    """Return the settings, flags first.

    Raises:
        UsageError: a setting is not valid, or the file TALLYSTREAM_CONFIG names cannot be read.

    """
    from pydantic import ValidationError

    from tallystream.settings.settings import Settings

    flags: dict[str, Any] = {"data_dir": data_dir, "kafka": kafka}
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as exc:
        # Only the name and the rule are shown, because the value may be a secret.
        wrong = "; ".join(
            f"{'.'.join(map(str, error['loc'])) or 'settings'}: {error['msg'].removeprefix('Value error, ')}"
            for error in exc.errors(include_input=False, include_url=False)
        )
        raise UsageError(
            f"a setting is not valid: {wrong}",
            "settings come from flags, TALLYSTREAM_* variables and the TOML file that TALLYSTREAM_CONFIG names",
        ) from None
    except (OSError, ValueError) as exc:
        raise UsageError(
            f"the settings file {os.environ.get('TALLYSTREAM_CONFIG', '')} cannot be read: {exc}",
            "TALLYSTREAM_CONFIG must name a TOML file",
        ) from exc


def read_run(data_dir: Path) -> Run:
    """Return the run.json of the `tallystream up` that runs in this data dir.

    Raises:
        UnreachableError: nothing runs there. A file left by a killed supervisor is ignored.

    """
    from tallystream.supervisor.runfile import read_live

    run = read_live(data_dir)
    if run is None:
        raise UnreachableError(
            f"nothing runs in {data_dir}",
            "start it with `tallystream up`, or name another place with --data-dir or --kafka",
        )
    return run


def cluster(settings: Settings) -> KafkaSettings:
    """Return the settings of the configured Kafka cluster, or of the one that `tallystream up` runs in the data dir.

    Raises:
        UnreachableError: no cluster is configured and nothing runs in the data dir.
        UsageError: the embedded broker's secret cannot be read.

    """
    if settings.kafka is None:
        return settings.embedded_kafka(read_run(settings.data_dir).kafka)
    if settings.kafka_protocol == "PLAINTEXT":  # it may be the address of the embedded broker, which needs its secret
        from tallystream.supervisor.runfile import read_live

        running = read_live(settings.data_dir)
        ours = running is not None and any(one.name == "kafka" for one in running.components)
        if running is not None and ours and running.kafka == settings.kafka:
            return settings.embedded_kafka(running.kafka)
    return settings.kafka_settings(settings.kafka)


def emit_json(document: object) -> None:
    """Print one JSON document on stdout; what could steer a terminal in it is escaped."""
    legible = "utf" in (sys.stdout.encoding or "").lower()
    text = json.dumps(document, indent=2, ensure_ascii=not legible, default=str)
    sys.stdout.write(escape_json(text) + "\n")
    sys.stdout.flush()


def fail(code: str, message: str, hint: str, *, as_json: bool, defect: Exception | None = None) -> None:
    """Report an error on stderr: one line, and the next step if there is one. `defect`: it is a bug of ours."""
    logs = sys.modules.get("tallystream.components.logs")
    if logs is not None and not as_json and logs.failed(code, message, hint, defect):
        return
    if defect is not None and os.environ.get("TALLYSTREAM_TRACEBACK"):
        traceback.print_exception(defect)
    if as_json:
        text = json.dumps({"code": code, "message": message, "hint": hint}, ensure_ascii=False)
        sys.stderr.write(escape_json(text) + "\n")
        return
    from rich.markup import escape

    from tallystream.cli.output.consoles import err_console

    err_console.print(f"[bold red]error:[/] {escape(visible_lines(message))}", soft_wrap=True)
    if hint:
        err_console.print(f"  {escape(visible_lines(hint))}", style="dim", soft_wrap=True)
