"""The components that `tallystream up` runs, as data. To add a component, add an entry."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from tallystream.schemas.errors import UsageError
from tallystream.settings.settings import Settings
from tallystream.supervisor.runfile import RUN_FILE

OPS_PORT = "{ops_port}"
"""Placeholder in an argv for the ops port that the supervisor picks."""


@dataclass(frozen=True)
class ComponentSpec:
    """One process. Components without `needs_kafka` start at once, the others when Kafka can be used."""

    name: str
    """The subcommand, plus `-N` where there are several."""
    argv: tuple[str, ...]
    stop_rank: int
    """Lower ranks are stopped, and have ended, before higher ones are."""
    needs_kafka: bool = True
    is_kafka: bool = False
    pid_file: Path | None = None
    """File to which the component writes the pid of the process that does its work, if that is another one."""
    quiet: bool = False
    """Show only errors, because warnings of this component rarely help users."""
    gates: bool = True
    """Whether `up` waits for it and fails if it does not start. Only what receives and counts telemetry gates; other
    components report their problems while `up` goes on.
    """
    outward: bool = False
    """Whether its warnings are about others: Port, OpenAI, the user's files. They are shown from the start, because
    some are logged only once.
    """


@dataclass(frozen=True)
class Timing:
    """Timeouts and intervals of the supervisor, in seconds."""

    poll: float = 0.1
    """Between checks of a component that is not ready yet."""
    health: float = 2.0
    """Between checks of a component that is ready."""
    answer: float = 5.0
    """A health check without an answer for this long has failed."""
    red: float = 20.0
    """A component whose /healthz has failed for this long, after it had succeeded, is restarted."""
    start: float = 120.0
    """A component that is not healthy by then is restarted, or at the first start fails `up`."""
    stop: float = 25.0
    """Between SIGTERM and SIGKILL."""
    deaf: float = 3.0
    """The same for a component that does not answer at all, because its signal handler is then blocked as well."""
    backoff_first: float = 0.2
    backoff_most: float = 10.0
    stable: float = 30.0
    """After a component has run for this long, the backoff of its restarts begins anew."""


@dataclass(frozen=True)
class Plan:
    """Everything that the supervisor runs, and the content of run.json."""

    data_dir: Path
    http: str
    kafka: str
    specs: tuple[ComponentSpec, ...]
    timing: Timing = field(default_factory=Timing)
    served_before: bool = False
    """Clients already send here. As some never retry, no failure of another component may end the gateway."""
    console: str | None = None
    """Base URL of the console."""
    grpc: str | None = None
    """`host:port` of OTLP/gRPC; None if its port is not free."""


def plan(
    settings: Settings,
    *,
    port: int,
    workers: int,
    gateways: int = 1,
    embedded_port: int | None,
    grpc_port: int | None = None,
    console_port: int | None = None,
    accept_loss: bool = False,
) -> Plan:
    """Return what `up` runs: all components, and Kafka on `embedded_port` unless the settings name a cluster.

    Several `gateways` share the ports, and the kernel spreads the clients' connections over them.
    Without `grpc_port`, gRPC is not served. Without `console_port`, the console is not started.
    `accept_loss` is passed to the workers.
    """
    data_dir = settings.data_dir.resolve()
    bootstrap = settings.kafka or f"127.0.0.1:{embedded_port}"
    # Not --kafka, which means that the cluster is the operator's own and requires keys and credentials.
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
    # The gateway starts at the same time as Kafka, and spools what arrives before Kafka is ready.
    # /readyz on its well-known port stands for the whole deployment, and succeeds once run.json exists.
    ports = ("--port", str(port), "--grpc-port", str(grpc_port or 0))
    shared = ("--reuse-port",) if gateways > 1 else ()
    gateway = command("gateway", *ports, *shared, "--run-file", str(data_dir / RUN_FILE), *where)
    for number in range(1, gateways + 1):
        name = "gateway" if gateways == 1 else f"gateway-{number}"
        specs.append(ComponentSpec(name, gateway, stop_rank=0, needs_kafka=False))
    for number in range(1, workers + 1):
        name = "worker" if workers == 1 else f"worker-{number}"
        options = ("--accept-loss",) if accept_loss else ()
        specs.append(ComponentSpec(name, command("worker", "--instance", name, *options, *where), stop_rank=5))
    specs.append(ComponentSpec("exporter", command("exporter", *where), stop_rank=5, gates=False))
    specs.append(ComponentSpec("ledger", command("ledger", *where), stop_rank=6, gates=False))
    http = f"{'https' if settings.tls_cert else 'http'}://127.0.0.1:{port}"
    if console_port is not None:
        console = command("console", "--port", str(console_port), "--endpoint-url", http, *where)
        specs.append(ComponentSpec("console", console, stop_rank=0, needs_kafka=False, gates=False))
    if settings.polls_openai or settings.polls_anthropic or _own_providers(settings):
        specs.append(ComponentSpec("poller", command("poller", *where), stop_rank=5, gates=False, outward=True))
    if settings.writes_to_port:
        specs.append(ComponentSpec("sink", command("sink", *where), stop_rank=6, gates=False, outward=True))
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


def _own_providers(settings: Settings) -> bool:
    """Tell whether a resource file declares a provider, which brings its own key. A file that only adds resources of
    OpenAI cannot be polled without a key of OpenAI. A file that cannot be used is left to the poller, which reports it.
    """
    if settings.openai_resources is None:
        return False
    from tallystream.components.poller import declared_resources  # it imports the Kafka client

    try:
        return bool(declared_resources(settings).providers)
    except UsageError:
        return True
