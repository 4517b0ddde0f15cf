"""`tallystream sink`: rows and records into Port's catalogue."""

from __future__ import annotations

import typer

from tallystream.cli.commands.components import Embedded, OpsPort
from tallystream.cli.options import DataDir, KafkaOption, cluster, settings_from


def sink(
    ops_port: OpsPort = 0,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
    embedded: Embedded = None,
) -> None:
    """Keep Port's catalogue up to date. Run several: one writes, the others stand by.

    Needs TALLYSTREAM_PORT_CLIENT_ID and TALLYSTREAM_PORT_CLIENT_SECRET. Creates blueprints that Port does not have;
    what it writes is decided by the mapping (`tallystream port mapping show`). Deletes nothing unless
    TALLYSTREAM_PORT_RETENTION says so.
    """
    from tallystream.components import sink as component

    settings = settings_from(data_dir, kafka)
    at = settings.kafka_settings(embedded) if embedded else cluster(settings)
    component.run(settings, at, ops_port=ops_port)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sink")(sink)
