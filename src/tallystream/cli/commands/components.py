"""`tallystream gateway | worker | exporter | ledger | kafka`: runs one component until it is told to stop."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tallystream.cli.options import DataDir, KafkaOption, cluster, settings_from

if TYPE_CHECKING:
    from tallystream.settings.settings import Settings
    from tallystream.streams.kafka.settings import KafkaSettings

Embedded = Annotated[
    str | None,
    typer.Option("--embedded", hidden=True, help="The embedded broker; set by `up`, which starts this command."),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; loopback by default.")]
OpsPort = Annotated[
    int,
    typer.Option("--ops-port", min=0, max=65535, help="Port of /healthz, /readyz and /metrics; 0 picks a free one."),
]


def gateway(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="OTLP/HTTP port.")] = 4318,
    grpc_port: Annotated[
        int | None,
        typer.Option("--grpc-port", min=0, max=65535, help="OTLP/gRPC port; 0: off.", show_default="--port minus 1"),
    ] = None,
    reuse_port: Annotated[
        bool,
        typer.Option("--reuse-port", help="Share the ports with other gateway processes (SO_REUSEPORT)."),
    ] = False,
    ops_port: OpsPort = 0,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
    embedded: Embedded = None,
    run_file: Annotated[
        Path | None, typer.Option("--run-file", hidden=True, help="/readyz on --port fails until this file exists.")
    ] = None,
) -> None:
    """Receive telemetry over OTLP/HTTP and OTLP/gRPC and write it to Kafka.

    Answers 200 only when Kafka has acknowledged a request or the local spool has it on disk. On SIGTERM it finishes the
    requests in flight.
    """
    from tallystream.components import gateway as component

    settings = settings_from(data_dir, kafka)
    component.run(
        settings,
        _cluster(settings, embedded),
        host=host,
        port=port,
        grpc_port=grpc_port,
        reuse_port=reuse_port,
        ops_port=ops_port,
        run_file=run_file,
    )


def worker(
    ops_port: OpsPort = 0,
    instance: Annotated[
        str,
        typer.Option("--instance", help="Name of this worker: unique, and the same after a restart."),
    ] = "",
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Continue although usage messages were removed before they were counted; they are reported as lost.",
        ),
    ] = False,
    standby: Annotated[
        bool,
        typer.Option(
            "--standby",
            help="Copy other workers' partitions, to take them over within seconds (TALLYSTREAM_WORKER_STANDBY).",
        ),
    ] = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
    embedded: Embedded = None,
) -> None:
    """Fold usage into cost rows. You may run several: they share the partitions."""
    from tallystream.components import worker as component

    settings = settings_from(data_dir, kafka)
    component.run(
        settings,
        _cluster(settings, embedded),
        ops_port=ops_port,
        instance=instance or socket.gethostname(),
        accept_loss=accept_loss,
        standby=standby,
    )


def exporter(
    ops_port: OpsPort = 0,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
    embedded: Embedded = None,
) -> None:
    """Serve lag, tokens, cost and freshness to Prometheus on /metrics of --ops-port. Run one for each deployment.

    It reads only Kafka, so its metrics stay correct while no worker runs. Its counters are kept in DATA_DIR/exporter;
    on a persistent volume they never decrease.
    """
    from tallystream.components import exporter as component

    settings = settings_from(data_dir, kafka)
    component.run(settings, _cluster(settings, embedded), ops_port=ops_port)


def ledger(
    ops_port: OpsPort = 0,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
    embedded: Embedded = None,
) -> None:
    """Keep the rows of all topics in SQL: SQLite in DATA_DIR/ledger, or PostgreSQL with TALLYSTREAM_LEDGER.

    `cost`, `sql`, `export` and the console read it. It is built from the topics and can be deleted at any time. Of
    several ledgers on one database, one writes and the others stand by.
    """
    from tallystream.components import ledger as component

    settings = settings_from(data_dir, kafka)
    component.run(settings, _cluster(settings, embedded), ops_port=ops_port)


def _cluster(settings: Settings, embedded: str | None) -> KafkaSettings:
    return settings.kafka_settings(embedded) if embedded else cluster(settings)


def kafka(
    port: Annotated[
        int,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help="Port on 127.0.0.1; 0 reuses the previous one if possible, or picks a free one.",
        ),
    ] = 0,
    ops_port: OpsPort = 0,
    data_dir: DataDir = None,
) -> None:
    """Run only the embedded Apache Kafka, on loopback, with its data in DATA_DIR/kafka.

    For development. The first run downloads it (45 MB); TALLYSTREAM_MAVEN_MIRROR names another Maven repository.
    """
    from tallystream.components import kafka as component

    component.run(settings_from(data_dir), port=port, ops_port=ops_port)


def register(app: typer.Typer) -> None:
    """Add the component commands."""
    app.command("gateway")(gateway)
    app.command("worker")(worker)
    app.command("exporter")(exporter)
    app.command("ledger")(ledger)
    app.command("kafka")(kafka)
