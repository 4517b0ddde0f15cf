"""Builds the ledger from the settings and runs it until it is told to stop."""

from __future__ import annotations

from tallystream.agents.ledger.config import LedgerConfig
from tallystream.agents.ledger.service import Ledger
from tallystream.components import harness, logs
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.settings import KafkaSettings


def run(settings: Settings, kafka: KafkaSettings, *, ops_port: int) -> None:
    """Run a ledger until SIGTERM or SIGINT: it writes, or stands by while another one does.

    Raises:
        UsageError: the ops port is taken, or TALLYSTREAM_LEDGER is not a PostgreSQL URL.
        LedgerUnfitError: the database belongs to a newer release, or refuses a required operation.

    """
    logs.configure()
    config = LedgerConfig(kafka, settings.topics(), settings.ledger_place())
    harness.run("ledger", Ledger, config, ops=(settings.ops_host, ops_port))
