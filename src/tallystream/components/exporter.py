"""Builds the exporter from the settings and runs it until it is told to stop."""

from __future__ import annotations

from tallystream.components import harness, logs
from tallystream.exporter import ExporterConfig, MetricsExporter
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.settings import KafkaSettings


def run(settings: Settings, kafka: KafkaSettings, *, ops_port: int) -> None:
    """Run the exporter until SIGTERM or SIGINT.

    Raises:
        UsageError: the ops port is taken, or another exporter uses the data directory.
        UnfitError: the counters' file is damaged, or a topic has the wrong settings.

    """
    logs.configure()
    config = ExporterConfig(kafka, settings.topics(), settings.data_dir / "exporter", settings.lateness.total_seconds())
    with harness.owned(config.directory, "an exporter", "a deployment needs only one"):
        harness.run("exporter", MetricsExporter, config, ops=(settings.ops_host, ops_port))
