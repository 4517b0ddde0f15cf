"""What `tallystream up` runs, as data: another component is another entry."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from tallystream.settings.settings import Settings
from tallystream.supervisor.runfile import RUN_FILE

OPS_PORT = "{ops_port}"
"""Stands in an argv for the ops port that the supervisor picks."""


@dataclass(frozen=True)
class ComponentSpec:
    """One process. Components without `needs_kafka` start at once, the others when Kafka is usable."""

    name: str
    """The subcommand, plus `-N` where there are several."""
    argv: tuple[str, ...]
    stop_rank: int
    """Lower ranks are stopped, and have ended, before higher ones are."""
    needs_kafka: bool = True
    is_kafka: bool = False
    pid_file: Path | None = None
    """Where the component writes the pid of the process that does its work, when that is not its own."""
    quiet: bool = False
    """Show only its errors: its warnings are for those who know it well."""
    gates: bool = True
    """Whether `up` waits for it and, at the first start, fails with it: true of the parts that no token can do without.
    What the others have to say is shown, and `up` goes on.
    """


@dataclass(frozen=True)
class Timing:
    """How patient the supervisor is; all in seconds."""

    poll: float = 0.1
    """Between looks at a component that is not ready yet."""
    health: float = 2.0
    """Between looks at one that is."""
    answer: float = 5.0
    """A health page that takes longer is red."""
    red: float = 20.0
    """A component whose /healthz has been red this long, once it was green, is restarted."""
    start: float = 120.0
    """A component that has not turned green by then is restarted, or at the first start fails the whole."""
    stop: float = 25.0
    """Between SIGTERM and SIGKILL."""
    deaf: float = 3.0
    """The same for a component that does not even answer: what blocks its health page blocks its signal handler too."""
    backoff_first: float = 0.2
    backoff_most: float = 10.0
    stable: float = 30.0
    """After running this long, a component's next restart is as quick as its first."""


@dataclass(frozen=True)
class Plan:
    """Everything the supervisor runs, and what run.json says of it."""

    data_dir: Path
    http: str
    kafka: str
    specs: tuple[ComponentSpec, ...]
    timing: Timing = field(default_factory=Timing)
    served_before: bool = False
    """Clients send here already, and some never send again: nothing but the gateway itself ends the gateway."""
    console: str | None = None
    """Base URL of the console."""
    grpc: str | None = None
    """`host:port` of OTLP/gRPC, None when its port is not free."""


def plan(
    settings: Settings,
    *,
    port: int,
    workers: int,
    embedded_port: int | None,
    grpc_port: int | None = None,
    console_port: int | None = None,
) -> Plan:
    """Return what `up` runs: Kafka on `embedded_port` unless the settings name a cluster, and the rest.

    Without a `grpc_port` there is no gRPC, without a `console_port` no console.
    """
    data_dir = settings.data_dir.resolve()
    bootstrap = settings.kafka or f"127.0.0.1:{embedded_port}"
    # Not --kafka: that says that the cluster is the operator's own, with keys and credentials to be set.
    where = ("--kafka", bootstrap) if settings.kafka else ("--embedded", bootstrap)

    def command(subcommand: str, *arguments: str) -> tuple[str, ...]:
        common = ("--ops-port", OPS_PORT, "--data-dir", str(data_dir))
        return (sys.executable, "-m", "tallystream", subcommand, *arguments, *common)

    specs = []
    if not settings.kafka:
        specs.append(
            ComponentSpec(
                "kafka",
                command("kafka", "--port", str(embedded_port)),
                stop_rank=9,
                needs_kafka=False,
                is_kafka=True,
                pid_file=data_dir / "kafka" / "jvm.pid",
                quiet=True,
            )
        )
    # The gateway starts beside Kafka, not after it: what arrives meanwhile goes to its spool.
    # Its port, which everybody knows, is /readyz for the whole: green once run.json is there.
    ports = ("--port", str(port), "--grpc-port", str(grpc_port or 0))
    gateway = command("gateway", *ports, "--run-file", str(data_dir / RUN_FILE), *where)
    specs.append(ComponentSpec("gateway", gateway, stop_rank=0, needs_kafka=False))
    for number in range(1, workers + 1):
        name = "worker" if workers == 1 else f"worker-{number}"
        specs.append(ComponentSpec(name, command("worker", "--instance", name, *where), stop_rank=5))
    specs.append(ComponentSpec("exporter", command("exporter", *where), stop_rank=5, gates=False))
    specs.append(ComponentSpec("ledger", command("ledger", *where), stop_rank=6, gates=False))
    http = f"{'https' if settings.tls_cert else 'http'}://127.0.0.1:{port}"
    if console_port is not None:
        console = command("console", "--port", str(console_port), "--endpoint-url", http, *where)
        specs.append(ComponentSpec("console", console, stop_rank=0, needs_kafka=False, gates=False))
    if settings.polls_openai or settings.polls_anthropic:
        specs.append(ComponentSpec("poller", command("poller", *where), stop_rank=5, gates=False))
    if settings.writes_to_port:
        specs.append(ComponentSpec("sink", command("sink", *where), stop_rank=6, gates=False))
    grpc = f"127.0.0.1:{grpc_port}" if grpc_port else None
    served_before = any((data_dir / "gateway").glob("connections*.json"))
    return Plan(
        data_dir,
        http,
        bootstrap,
        tuple(specs),
        grpc=grpc,
        served_before=served_before,
        console=None if console_port is None else f"http://127.0.0.1:{console_port}",
    )
