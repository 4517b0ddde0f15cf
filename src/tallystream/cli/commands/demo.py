"""`tallystream demo`: runs the whole product with a simulated fleet of agents."""

from __future__ import annotations

import contextlib
import json as json_module
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallystream.cli.options import DataDir, JsonOption, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.consoles import console, err_console
from tallystream.schemas.errors import MismatchError, TallystreamError, UnreachableError, UsageError, error_of_exit

if TYPE_CHECKING:
    from pathlib import Path

    from tallystream.schemas.run import Run
    from tallystream.settings.settings import Settings
    from tallystream.simulator import Report, SimulationTarget, Truth

HELP = """
Start everything, let a simulated fleet of coding agents report its usage, print the cost tables, and compare them with
the fleet's true usage, to the token and the picodollar.

Uses what `tallystream up` runs in the data dir, if it runs. Otherwise starts it together with stand-ins for OpenAI and
Port, which poller and sink use, and stops everything at the end. The fleet uses its own connection, named demo. With
--once it plays one round and exits with 0, or with 4 if a number differs. Without --once it continues until Ctrl-C.
"""
START_SECONDS = 600.0
"""The first start downloads Kafka."""
CATCH_UP_SECONDS = 60.0
CATALOGUE_SECONDS = 30.0
SESSION_BLUEPRINT = "coding_agent_session"


def demo(
    once: Annotated[bool, typer.Option("--once", help="Play one round, then exit: 0 if exact, 4 if not.")] = False,
    agents: Annotated[int, typer.Option("--agents", min=1, max=1000, help="Simulated agents.")] = 12,
    requests: Annotated[
        int, typer.Option("--requests", min=1, max=1_000_000, help="Model responses in each round.")
    ] = 400,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the fleet.", show_default="the time")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="OTLP/HTTP port.", show_default="a free one")
    ] = None,
    json: JsonOption = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Demonstrate everything with a simulated fleet of coding agents."""
    if json and not once:
        raise UsageError("--json prints one document at the end, and a demo without --once never ends", "add --once")
    settings = settings_from(data_dir, kafka)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    first = int(time.time()) if seed is None else seed
    with _running(settings, port) as (run, sandbox):
        demonstration = _Demo(settings, run, sandbox, agents=agents, requests=requests)
        if once:
            demonstration.round(first, show=not json)
            if json:
                emit_json(demonstration.document)
            return
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                demonstration.round(first, show=True)
                first += 1
        console.print("\nstopping")


def register(app: typer.Typer) -> None:
    """Add `demo`."""
    app.command("demo", help=HELP)(demo)


@contextlib.contextmanager
def _running(settings: Settings, port: int | None) -> Iterator[tuple[Run, str | None]]:
    """Provide the running deployment and the URL of a sandbox. If nothing runs, start both for the `with` block.

    A deployment that already runs gets no sandbox, because it uses the operator's own OpenAI and Port.
    """
    from tallystream.streams.process import tcp_ports
    from tallystream.supervisor.runfile import read_live

    if (run := read_live(settings.data_dir)) is not None:
        err_console.print(f"using what runs in {settings.data_dir}", style="dim", soft_wrap=True)
        yield run, None
        return
    logs = settings.data_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    port = port or (4318 if tcp_ports.is_free(4318) else tcp_ports.pick())
    with contextlib.ExitStack() as stack:
        environment = dict(os.environ)
        sandbox = None
        if not (settings.polls_openai or settings.writes_to_port):
            sandbox_port = tcp_ports.pick(port)
            sandbox = f"http://127.0.0.1:{sandbox_port}"
            stack.enter_context(
                _child(["sandbox", "--port", str(sandbox_port)], environment, logs / "demo-sandbox.log")
            )
            environment |= {
                "TALLYSTREAM_OPENAI_BASE_URL": f"{sandbox}/openai/v1",
                "TALLYSTREAM_OPENAI_API_TOKEN": "sk-sandbox",
                "TALLYSTREAM_PORT_BASE_URL": f"{sandbox}/port",
                "TALLYSTREAM_PORT_CLIENT_ID": "sandbox",
                "TALLYSTREAM_PORT_CLIENT_SECRET": "sandbox",
            }
        argv = ["up", "--port", str(port), "--data-dir", str(settings.data_dir)]
        argv += ["--kafka", settings.kafka] if settings.kafka else []
        process = stack.enter_context(_child(argv, environment, logs / "demo-up.log"))
        yield _await_ready(settings, process, logs / "demo-up.log"), sandbox


@contextlib.contextmanager
def _child(argv: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our commands during the block, in its own process group, so that Ctrl-C reaches only us."""
    from tallystream.streams.process.children import spawn

    with log.open("wb") as output:
        process = spawn(
            [sys.executable, "-m", "tallystream", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment | {"COLUMNS": "200"},
        )
    try:
        yield process
    finally:
        _stop(process)


def _await_ready(settings: Settings, process: subprocess.Popen[bytes], log: Path) -> Run:
    from tallystream.supervisor.runfile import read_live

    began = time.monotonic()
    with err_console.status("starting Kafka, gateway and worker (the first start downloads Kafka, 45 MB)"):
        while (run := read_live(settings.data_dir)) is None:
            if process.poll() is not None:
                raise _why(process.returncode, log)
            if time.monotonic() - began > START_SECONDS:
                raise UnreachableError(f"nothing was ready after {START_SECONDS:g} s", f"its output is in {log}")
            time.sleep(0.1)
    err_console.print(f"ready after {time.monotonic() - began:.1f} s", style="dim")
    return run


def _why(code: int, log: Path) -> TallystreamError:
    """Return the last error of `up` as an exception."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    at = max((i for i, line in enumerate(lines) if line.startswith("error:")), default=None)
    message = lines[at].removeprefix("error:").strip() if at is not None else f"`tallystream up` exited with {code}"
    hint = " ".join(lines[at + 1 :]) if at is not None else f"its output is in {log}"
    return error_of_exit(code)(message, hint)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Demo:
    """Plays rounds of a simulated fleet on one connection."""

    def __init__(self, settings: Settings, run: Run, sandbox: str | None, *, agents: int, requests: int) -> None:
        from tallystream.cli.output.progress import run as run_async
        from tallystream.simulator import target
        from tallystream.streams.connections.registry import Connections

        self._settings = settings
        self._sandbox = sandbox
        self._agents = agents
        self._requests = requests
        issued = run_async(Connections(cluster(settings), settings.topics()).create("codex", name="demo"))
        self._connection_id = issued.connection.connection_id
        self._target: SimulationTarget = target(run.http, issued.ingest_id)
        self._used: dict[str, tuple[int, int]] = {}
        self.document: dict[str, Any] = {}

    def round(self, seed: int, *, show: bool) -> None:
        """Play a fleet, print the tables and compare them with the truth.

        Raises:
            MismatchError: a row differs from the fleet's truth.
            UnreachableError: the worker did not catch up in time.

        """
        import uvloop

        from tallystream.cli.commands.catch_up import catch_up, places_of
        from tallystream.cli.output.progress import run

        truth, report = uvloop.run(self._play(seed))
        settings = self._settings
        with err_console.status("catching up"):
            find = partial(places_of, settings)
            run(
                catch_up(
                    cluster(settings), settings.topics(), find, seconds=CATCH_UP_SECONDS, show=lambda _behind: None
                )
            )
        if show:
            self._print()
        self._compare(truth, report, show=show)
        if self._sandbox is not None:
            self._catalogue(show=show)

    async def _play(self, seed: int) -> tuple[Truth, Report]:
        from tallystream.simulator import FleetConfig, Load, Truth
        from tallystream.simulator import run as play
        from tallystream.streams.service.clock import SystemClock

        config = FleetConfig(
            agents=self._agents,
            requests=self._requests,
            seed=seed,
            start_ns=SystemClock().now_ns() - 3_600_000_000_000,
            duplicates=0.1,
            late=0.05,
        )
        truth = Truth(config)
        with err_console.status(f"{self._agents} simulated agents report {self._requests} model responses"):
            report = await play(config, self._target, Load(retries=3), truth=truth)
        return truth, report

    def _rows(self, view: str) -> Any:
        from tallystream.agents.cost_query import Query
        from tallystream.cli.commands.cost import collect
        from tallystream.cli.output.progress import run

        table, _ = run(collect(self._settings, Query(view, connection=self._connection_id)))
        return table

    def _print(self) -> None:
        from tallystream.agents.cost_query import Query
        from tallystream.cli.commands.cost import collect
        from tallystream.cli.output.cost_table import cost_table, people
        from tallystream.cli.output.progress import run
        from tallystream.streams.service.clock import SystemClock

        now = SystemClock().now_ns()
        for title, query, last in (
            ("Sessions, the most expensive first", people(Query("sessions", connection=self._connection_id)), False),
            ("Teams", Query("sessions", ("team",), self._connection_id), False),
            ("Models", people(Query("models", connection=self._connection_id)), True),
        ):
            table, _ = run(collect(self._settings, query))
            console.print(f"\n[bold]{title}[/]")
            cost_table(table, now, limit=8, wide=False, console=console, notes=last)

    def _compare(self, truth: Truth, report: Report, *, show: bool) -> None:
        from tallystream.simulator import compare
        from tallystream.streams.service.clock import SystemClock

        rows = list(self._rows("session-hours").rows(SystemClock().now_ns()))
        differences = compare(truth, rows)
        used = truth.document()
        for row in used["acknowledged"]["rows"]:
            requests, tokens = self._used.get(row["session_id"], (0, 0))
            self._used[row["session_id"]] = requests + row["requests"], tokens + row["total_tokens"]
        self.document = {
            "exact": not differences,
            "connection_id": self._connection_id,
            "rows": len(rows),
            "sent": used["sent"],
            "totals": used["acknowledged"]["totals"],
            "http": dict(sorted(report.answers.items())),
            "differences": [str(difference) for difference in differences],
        }
        if differences:
            if not show:
                emit_json(self.document)
            raise MismatchError(
                f"{len(differences)} of {len(rows)} rows differ from the fleet's true usage: {differences[0]}",
                "this is a bug: please report it with the files in " + str(self._settings.data_dir / "logs"),
            )
        if show:
            totals = self.document["totals"]
            console.print(
                f"\n[bold green]exact[/]: {len(rows):,} rows equal what the fleet used, to the token and the"
                f" picodollar: {totals['requests']:,} requests, {totals['total_tokens']:,} tokens,"
                f" ${totals['cost_usd']} ({self.document['sent']['copies']:,} duplicates sent, none counted)",
                soft_wrap=True,
            )

    def _catalogue(self, *, show: bool) -> None:
        """Report the content of the stand-in for Port once it has every session of the fleet with all its tokens."""
        began = time.monotonic()
        with err_console.status("waiting for the catalogue"):
            while (behind := self._behind()) and time.monotonic() - began < CATALOGUE_SECONDS:
                time.sleep(0.2)
        held = Counter(entity["blueprint"] for entity in self._entities())
        self.document["catalogue"] = {"sessions_behind": behind, "entities": dict(sorted(held.items()))}
        if behind:
            err_console.print(
                f"{behind} sessions are not in the catalogue as they should be after {CATALOGUE_SECONDS:g} s;"
                f" the sink's log is in {self._settings.data_dir / 'logs'}",
                style="yellow",
                soft_wrap=True,
            )
        elif show:
            console.print(
                f"[bold green]catalogue[/]: all {len(self._used)} sessions are in the stand-in for Port, with all their"
                " tokens; it holds " + ", ".join(f"{count:,} {name}" for name, count in sorted(held.items())),
                soft_wrap=True,
            )

    def _behind(self) -> int:
        """Return how many of the fleet's sessions are missing in Port, or have other requests or tokens there."""
        held = {
            entity["properties"].get("session_id"): (
                entity["properties"].get("requests"),
                entity["properties"].get("total_tokens"),
            )
            for entity in self._entities()
            if entity["blueprint"] == SESSION_BLUEPRINT
        }
        return sum(held.get(session) != used for session, used in self._used.items())

    def _entities(self) -> list[dict[str, Any]]:
        from tallystream.supervisor.http_client import request

        status, body = request("GET", f"{self._sandbox}/sandbox/port/entities", timeout=10.0)
        entities: list[dict[str, Any]] = json_module.loads(body) if status == 200 else []
        return entities
