"""`tallystream simulate`: plays a seeded fleet of coding agents against a gateway and records its true cost."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallystream.cli.options import DataDir, JsonOption, emit_json, read_run, settings_from
from tallystream.cli.output.consoles import console, err_console
from tallystream.schemas.errors import UnreachableError, UsageError
from tallystream.schemas.ingest import CONNECTION_HEADER

if TYPE_CHECKING:
    import asyncio

    from rich.progress import Progress

    from tallystream.simulator import FleetConfig, Load, Report, SimulationTarget, Truth

HELP = """
Play a fleet of coding agents against a gateway, and record its true cost.

The fleet sends the telemetry of Codex, Claude Code or Gemini CLI over HTTP, including records that are not usage, or of
all three with --client mixed. With --client genai it sends the spans of Copilot CLI, Pydantic AI behind a LiteLLM proxy
and LangChain, in which runs repeat the totals of their calls and calls are seen twice. Each record names its client, so
any connection accepts any fleet. The same --seed and --start give the same bodies, byte for byte. Name the target with
--endpoint, or with --connection when `tallystream up` runs on this machine:

    tallystream connections create codex --json > conn.json
    tallystream simulate --connection conn.json --agents 20 --requests 2000 --seed 7 --client mixed --truth truth.json
    tallystream wait --caught-up && tallystream cost models

The truth file contains the rows that `cost session-hours` must show for what was acknowledged (answered 200). What was
sent without such an answer is listed separately, because it may count once or not at all. Dollars are computed with
genai-prices; reported_cost_usd is the cost that Claude Code reports. Ctrl-C stops cleanly and still writes the truth
file.
"""

Endpoint = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="URL", help="Base URL or logs URL that `connections create` printed."),
]
Connection = Annotated[
    str | None,
    typer.Option(
        "--connection",
        metavar="C",
        help=f"An ingest id, sent as the header {CONNECTION_HEADER} to the gateway of --data-dir (or of --endpoint)"
        "; or a file with the output of `connections create --json`, or - to read that from stdin.",
    ),
]
Agents = Annotated[
    int, typer.Option("--agents", min=1, max=100_000, help="Number of agents; each has at most one request in flight.")
]
Requests = Annotated[
    int,
    typer.Option(
        "--requests",
        min=1,
        help="Model responses of the whole fleet, as counted by the column `requests` of the cost tables."
        " One OTLP request reports about two of them.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the random choices; the time is set by --start.")]
Start = Annotated[
    str | None,
    typer.Option(
        "--start", metavar="T", help="When the fleet began: 2026-11-21T14:00Z, or 3h (ago).", show_default="--span ago"
    ),
]
Span = Annotated[str, typer.Option("--span", metavar="D", help="The fleet's own time that its work is spread over.")]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate",
        min=0.001,
        metavar="R",
        help="OTLP requests per second, sent on schedule even if earlier ones were not answered.",
        show_default="as fast as they are answered",
    ),
]
Client = Annotated[
    str,
    typer.Option(
        "--client",
        metavar="codex|claude|gemini|genai|mixed",
        help="Which clients to play. genai: programs that are counted by their spans. mixed: of ten agents, five Codex,"
        " three Claude Code, two Gemini CLI.",
    ),
]
Duplicates = Annotated[
    float,
    typer.Option("--duplicates", metavar="P", help="Share of the token records that are sent again in a later body."),
]
Late = Annotated[
    float, typer.Option("--late", metavar="P", help="Share of the bodies that report usage from hours before.")
]
LateMax = Annotated[str, typer.Option("--late-by", metavar="D", help="Maximum lateness.")]
Resend = Annotated[float, typer.Option("--resend", metavar="P", help="Share of the bodies posted a second time.")]
Encoding = Annotated[
    str,
    typer.Option(
        "--encoding",
        metavar="protobuf|json|mixed",
        help="mixed: every fourth agent of a client sends JSON. Gemini CLI always sends JSON over HTTP.",
    ),
]
Gzip = Annotated[bool, typer.Option("--gzip", help="Compress bodies.")]
Retry = Annotated[
    int,
    typer.Option(
        "--retry",
        min=0,
        max=20,
        metavar="N",
        help="Retry requests without an answer or with a retryable one. Codex itself does not retry.",
    ),
]
TruthFile = Annotated[
    Path | None,
    typer.Option("--truth", metavar="FILE", dir_okay=False, help="File to write the expected rows to."),
]


def simulate(
    agents: Agents, requests: Requests, seed: Seed, endpoint: Endpoint = None, connection: Connection = None,
    truth: TruthFile = None, rate: Rate = None, client: Client = "codex", duplicates: Duplicates = 0.0,
    late: Late = 0.0, late_by: LateMax = "26h", resend: Resend = 0.0, encoding: Encoding = "mixed", gzip: Gzip = False,
    retry: Retry = 0, start: Start = None, span: Span = "1h", json: JsonOption = False, data_dir: DataDir = None,
) -> None:  # fmt: skip
    """Play a fleet of coding agents against a gateway."""
    import uvloop

    from tallystream.cli.output.times import parse_duration, parse_when
    from tallystream.simulator import FleetConfig, Load, Truth
    from tallystream.streams.service.clock import SystemClock

    now_ns = SystemClock().now_ns()
    span_ns = int(parse_duration(span, "--span").total_seconds()) * 1_000_000_000
    config = FleetConfig(
        agents=agents,
        requests=requests,
        seed=seed,
        start_ns=now_ns - span_ns if start is None else parse_when(start, now_ns, "--start"),
        span_ns=span_ns,
        client=_one_of("--client", client, ("codex", "claude", "gemini", "genai", "mixed")),
        encoding=_one_of("--encoding", encoding, ("protobuf", "json", "mixed")),
        gzip=gzip,
        duplicates=duplicates,
        late=late,
        late_max_ns=int(parse_duration(late_by, "--late-by").total_seconds()) * 1_000_000_000,
        resend=resend,
    )
    where = _target(endpoint, connection, data_dir)
    oracle = Truth(config)
    if truth is not None:
        _writable(truth)
    report = uvloop.run(_play(config, where, Load(rate=rate, retries=retry), oracle, truth))
    if truth is not None:
        with err_console.status("pricing the truth") if err_console.is_terminal else _Quiet():
            oracle.write(truth)
    _check(report, where)
    if json:
        emit_json(report.document() | {"seed": seed, "start": config.start_iso, "truth": truth and str(truth)})
    else:
        _show(report, config, truth)


def register(app: typer.Typer) -> None:
    """Add `simulate`."""
    app.command("simulate", help=HELP)(simulate)


class _Quiet:
    """Says nothing."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise UsageError(f"{option} {value!r} is not valid", f"use {' or '.join(choices)}")
    return value


def _target(endpoint: str | None, connection: str | None, data_dir: Path | None) -> SimulationTarget:
    from tallystream.simulator import target

    if endpoint is None and connection is None:
        raise UsageError("where to?", "use --endpoint URL or --connection C; `connections create` prints both")
    base, ingest_id, headers = _connection(connection) if connection is not None else (None, None, {})
    if endpoint is not None:
        to = target(endpoint, ingest_id)
    elif base is not None:
        to = target(base)
    else:
        to = target(read_run(settings_from(data_dir).data_dir).http, ingest_id)
    return replace(to, headers=to.headers | headers)


def _connection(value: str) -> tuple[str | None, str, dict[str, str]]:
    """Return the base URL (if known), ingest id and bearer header of --connection: secrets, never to be printed."""
    import orjson

    try:
        if value == "-":
            text = sys.stdin.read()
        elif len(value) < 1024 and Path(value).is_file():
            text = Path(value).read_text(encoding="utf-8")
        else:
            return None, value, {}
        document = orjson.loads(text)
        bearer = {name: str(value) for name, value in document.get("headers", {}).items() if name == "authorization"}
        return str(document["base_url"]), str(document["ingest_id"]), bearer
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UsageError(
            f"--connection is not the output of `connections create --json`: {type(exc).__name__}",
            "save it with `tallystream connections create codex --json > conn.json`",
        ) from None


def _writable(path: Path) -> None:
    """Check before the load that the truth file can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.try").touch()
        path.with_name(f".{path.name}.try").unlink()
    except OSError as exc:
        raise UsageError(
            f"--truth {path} cannot be written: {exc.strerror}", "name a file in a directory that exists"
        ) from exc


async def _play(config: FleetConfig, where: SimulationTarget, load: Load, oracle: Truth, truth: Path | None) -> Report:
    """Run until done or until SIGINT or SIGTERM. A second signal ends it at once."""
    import asyncio
    import signal

    from tallystream.simulator import run

    await _answers(where)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, loop, number, stop)
    if not err_console.is_terminal:
        return await run(config, where, load, truth=oracle, truth_file=truth, stop=stop)
    with _bar() as bar:
        task = bar.add_task("simulating", total=config.requests, answers="")

        def watch(report: Report) -> None:
            answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(report.answers.items()))
            done = config.requests if report.complete else min(report.responses, config.requests)
            bar.update(task, completed=done, answers=answers)

        return await run(config, where, load, truth=oracle, truth_file=truth, stop=stop, watch=watch)


def _stop(loop: asyncio.AbstractEventLoop, number: int, stop: asyncio.Event) -> None:
    loop.remove_signal_handler(number)
    stop.set()


async def _answers(where: SimulationTarget) -> None:
    """Check that something listens at the target before the load starts."""
    import asyncio
    from urllib.parse import urlsplit

    parts = urlsplit(where.base)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(parts.hostname, port)
            writer.close()
    except (OSError, TimeoutError) as exc:
        raise UnreachableError(
            f"{where.where} does not answer: {str(exc) or type(exc).__name__}",
            "is the gateway up? `tallystream status` shows what runs on this machine",
        ) from exc


def _bar() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[answers]}"), console=err_console, transient=True,
    )  # fmt: skip


def _check(report: Report, where: SimulationTarget) -> None:
    """Raise an error when no request was accepted."""
    if not report.bodies or report.answers["200"]:
        return
    refused = [status for status in report.answers if status in ("401", "403", "404")]
    if refused:
        raise UsageError(
            f"{where.where} refused every request with {', '.join(refused)}",
            "is the ingest id right and not revoked? `tallystream connections list` shows the connections",
        )
    answers = ", ".join(f"{count} x {status}" for status, count in sorted(report.answers.items()))
    raise UnreachableError(f"{where.where} accepted nothing: {answers}", "`tallystream status` shows what is wrong")


def _show(report: Report, config: FleetConfig, truth: Path | None) -> None:
    """Print the report for people."""
    seconds = max(report.seconds, 1e-9)
    latency = report.percentiles()
    answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(report.answers.items()))
    if not report.complete:
        console.print("[yellow]stopped[/] before everything was sent; the truth file has what was sent")
    console.print(
        f"{report.responses:,} token records in {report.bodies:,} OTLP requests, {report.bytes / 1e6:,.1f} MB"
    )
    console.print(
        f"{seconds:,.1f} s: {report.bodies / seconds:,.0f} requests/s, {report.records / seconds:,.0f} records/s,"
        f" {report.responses / seconds:,.0f} token records/s"
    )
    console.print(f"answers: {answers or 'none'}" + (f", {report.partial} partial" if report.partial else ""))
    if latency:
        console.print(
            f"latency: p50 {latency['p50_ms']:,.1f} ms, p99 {latency['p99_ms']:,.1f} ms,"
            f" max {latency['max_ms']:,.1f} ms"
        )
    console.print(f"seed {config.seed}, start {config.start_iso}" + (f", truth in {truth}" if truth else ""))
