"""`tallystream up | status | down`: run everything on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tallystream.cli.options import DataDir, JsonOption, KafkaOption, emit_json, settings_from
from tallystream.cli.output.consoles import console, err_console
from tallystream.schemas.errors import UnreachableError, UsageError
from tallystream.schemas.legible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tallystream.doctor.model import Finding
    from tallystream.schemas.run import Run
    from tallystream.settings.settings import Settings
    from tallystream.supervisor.status import Status

POLL_SECONDS = 0.05


def up(
    kafka: KafkaOption = None,
    data_dir: DataDir = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="OTLP/HTTP port, on loopback.")] = 4318,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=64, help="Worker processes; they share the partitions.")
    ] = 1,
    gateways: Annotated[
        int, typer.Option("--gateways", min=1, max=64, help="Gateway processes; they share the port.")
    ] = 1,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Workers continue although usage messages were removed before they were counted. These are reported as"
            " lost.",
        ),
    ] = False,
) -> None:
    """Start everything on this machine and keep it running: Kafka, gateway, worker, exporter, ledger, console.

    The first start downloads Apache Kafka (45 MB). A process that exits is restarted. Ctrl-C or `tallystream down`
    stops everything cleanly; a second Ctrl-C stops it at once. Logs are in DATA_DIR/logs.
    """
    import asyncio
    import logging

    from tallystream.cli.output.progress import log_to_stderr
    from tallystream.components.gateway import wanted_grpc_port
    from tallystream.streams.kafka.topic_setup import ensure
    from tallystream.streams.process import tcp_ports
    from tallystream.supervisor.runfile import SupervisorLock
    from tallystream.supervisor.specs import plan
    from tallystream.supervisor.supervisor import Supervisor

    # It logs each refused connection; our own error says what users need to know.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    settings = settings_from(data_dir, kafka)
    with SupervisorLock(settings.data_dir):
        if not tcp_ports.is_free(port):
            raise UsageError(
                f"port {port} is taken by another program (an OpenTelemetry collector listens on 4318, too)",
                f"stop it, or choose another port: tallystream up --port {port + 2}",
            )
        embedded_port = None if settings.kafka else _embedded(settings)
        grpc_port = wanted_grpc_port(settings, port)
        if grpc_port and not tcp_ports.is_free(grpc_port):
            if settings.grpc_port is not None:
                raise UsageError(f"port {grpc_port} for gRPC is taken", "set TALLYSTREAM_GRPC_PORT to another, or to 0")
            err_console.print(f"Port {grpc_port} is taken: telemetry over gRPC is not served.", style="yellow")
            grpc_port = 0
        console_port = port + 1 if port < 65535 and tcp_ports.is_free(port + 1) else tcp_ports.pick()
        planned = plan(
            settings,
            port=port,
            workers=workers,
            gateways=gateways,
            embedded_port=embedded_port,
            grpc_port=grpc_port,
            console_port=console_port,
            accept_loss=accept_loss,
        )
        names = ", ".join(spec.name for spec in planned.specs)
        screen = _Screen(f"starting {names}", settings.data_dir)

        async def prepare() -> None:
            cluster = settings.kafka_settings(planned.kafka)
            await ensure(cluster, settings.topics().all(), seconds=30.0)

        supervisor = Supervisor(planned, prepare=prepare, say=screen.say, started=screen.started)
        with screen:
            log_to_stderr()
            asyncio.run(supervisor.run())
        screen.say("up", "stopped")


def _embedded(settings: Settings) -> int:
    """Download and prepare the embedded Kafka if needed, with a progress bar, make its secret, and choose its port."""
    from tallystream.streams.embedded import secret
    from tallystream.streams.embedded.broker import prepare, usable_port

    prepare(settings.cache_dir, mirror=settings.maven_mirror)
    secret.ensure(settings.data_dir / "kafka")  # the other processes read it, and start at the same time as Kafka
    return usable_port(settings.data_dir / "kafka")


class _Screen:
    """Output of `up`: a spinner until all is ready, then the next steps, then only warnings and errors."""

    def __init__(self, starting: str, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._status = console.status(starting)
        self._began = time.monotonic()
        self._starting = starting

    def __enter__(self) -> None:
        if console.is_terminal:
            self._status.start()
        else:
            self.say("up", self._starting)

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def say(self, component: str, text: str) -> None:
        # The reader may have gone (`| head`, a closed terminal), which is not a reason to stop.
        with contextlib.suppress(OSError):
            console.print(f"[bold]{escape(component)}[/] {escape(visible(text))}", soft_wrap=True)

    def started(self, run: Run) -> None:
        self._status.stop()
        from tallystream.console.links import new_link

        seconds = time.monotonic() - self._began
        link = new_link(self._data_dir, run.console) if run.console else "-"
        with contextlib.suppress(OSError):
            console.print(
                f"\n[bold green]tallystream is ready[/] after {seconds:.1f} s\n\n"
                f"  OTLP endpoint   {run.http}\n"
                f"  Kafka           {run.kafka}\n"
                f"  Console         {link}   (logs in once; `tallystream console link` makes another)\n\n"
                "In another terminal:\n\n"
                "  [bold]tallystream connections create codex --name laptop[/]   prints a configuration for Codex\n"
                "  [bold]tallystream cost sessions[/]                            shows what its sessions cost\n\n"
                "Ctrl-C or [bold]tallystream down[/] stops everything; [bold]tallystream status[/] shows its state.\n",
                soft_wrap=True,
            )


def down(
    data_dir: DataDir = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.0, help="Seconds to wait until everything has stopped.")
    ] = 60.0,
) -> None:
    """Stop what `tallystream up` runs: the gateway first, Kafka last. Returns when everything has stopped."""
    from tallystream.supervisor import runfile

    settings = settings_from(data_dir)
    pid = runfile.owner(settings.data_dir)
    if pid is None:
        runfile.remove(settings.data_dir)
        err_console.print(f"nothing runs in {escape(str(settings.data_dir))}", soft_wrap=True)
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)  # a process stopped with Ctrl-Z receives the signal only when it is continued
    deadline = time.monotonic() + timeout
    with err_console.status("stopping"):
        while runfile.owner(settings.data_dir) == pid:
            if time.monotonic() > deadline:
                raise UnreachableError(
                    f"tallystream (pid {pid}) has not stopped within {timeout:g} s",
                    f"its logs are in {settings.data_dir / 'logs'}; `kill -9 {pid}` ends it without losing data",
                )
            time.sleep(POLL_SECONDS)
    err_console.print("stopped")


def status(data_dir: DataDir = None, as_json: JsonOption = False) -> None:
    """Show what runs in the data dir, and its state.

    Exits with 0 if everything is ready, 1 if something is not, and 3 if nothing runs.
    """
    import asyncio

    from rich.table import Table

    from tallystream.supervisor.status import collect

    settings = settings_from(data_dir)
    state = asyncio.run(collect(settings.data_dir))
    if as_json:
        emit_json(state.document())
    else:
        console.print(f"tallystream (pid {state.pid}) in {escape(str(settings.data_dir))}", soft_wrap=True)
        if state.run is None:
            console.print("still starting; its logs: " + escape(str(settings.data_dir / "logs")), soft_wrap=True)
        else:
            table = Table("component", "pid", "up for", "state", "ops", box=None, pad_edge=False)
            for row in state.components:
                colour = "green" if row.ready else "red"
                table.add_row(
                    row.name, str(row.pid), row.uptime, f"[{colour}]{escape(row.state)}[/]", row.ops_url or "-"
                )
            console.print(table)
            for name, finding in _problems(state):
                console.print(f"[bold red]{escape(name)}[/] {escape(visible(finding.what))}", soft_wrap=True)
                console.print(f"  {escape(visible(finding.step))}", style="dim", soft_wrap=True)
            console.print(
                f"OTLP endpoint {state.run.http}, Kafka {state.run.kafka}; `tallystream down` stops everything"
            )
            if state.run.console:
                console.print(f"Console {state.run.console}; `tallystream console link` logs in")
    if not state.ready:
        raise typer.Exit(1)


def _problems(state: Status) -> Iterator[tuple[str, Finding]]:
    """Yield what pollers and sinks cannot do now, with the name of each."""
    from tallystream.doctor import openai, port
    from tallystream.schemas.status import PollerStatus, SinkStatus

    for one in state.components:
        detail = one.report.detail if one.report is not None else None
        if isinstance(detail, PollerStatus):
            yield from ((one.name, finding) for finding in openai.judge(detail))
        elif isinstance(detail, SinkStatus):
            yield from ((one.name, finding) for finding in port.judge(detail))


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up)
    app.command("status")(status)
    app.command("down")(down)
