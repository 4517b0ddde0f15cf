"""The exporter as a component: built from the settings, run until told to stop."""

from __future__ import annotations

from tallystream.components import harness, logs
from tallystream.exporter import ExporterConfig, MetricsExporter
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.settings import KafkaSettings


def run(settings: Settings, kafka: KafkaSettings, *, ops_port: int) -> None:
    """Run the exporter until SIGTERM or SIGINT.

    Raises:
        UsageError: the ops port is taken, or another exporter has the data directory.
        UnfitError: the counters' file is damaged, or a topic is not as it must be.

    """
    logs.configure()
    config = ExporterConfig(kafka, settings.topics(), settings.data_dir / "exporter", settings.lateness.total_seconds())
    with harness.owned(config.directory, "an exporter", "one is enough for a deployment"):
        harness.run("exporter", MetricsExporter, config, ops=(settings.ops_host, ops_port))
