"""Builds the worker from the settings and runs it until it is told to stop."""

from __future__ import annotations

import gc
import re

from tallystream.agents.genai_calls.agent import CallConfig
from tallystream.agents.pricing import Book, read_overlay
from tallystream.agents.session_cost.config import WorkerConfig
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.service import Worker
from tallystream.components import harness, logs
from tallystream.schemas.errors import UsageError
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.settings import KafkaSettings

GC_THRESHOLD = (2_000, 50, 80)
"""States live long and have no cycles; with Python's defaults a worker spent a tenth of its time on examining them. The
youngest objects are examined often, because some of a Kafka client's hold a whole answer of a broker in a cycle: at
20,000, recovering a million session-hours took 780 MB instead of 460."""
_INSTANCE = re.compile(r"[A-Za-z0-9._-]{1,100}")


def run(
    settings: Settings,
    kafka: KafkaSettings,
    *,
    ops_port: int,
    instance: str,
    accept_loss: bool = False,
    standby: bool = False,
) -> None:
    """Run a worker until SIGTERM or SIGINT. `instance` is its unique name, which stays the same after a restart.

    Any failure once it runs ends the process with code 70 before anything wrong is written. Restart it then.

    Raises:
        UsageError: the prices, the instance name or the ops port cannot be used, or the instance already runs.
        UnreachableError: Kafka does not answer.
        UnfitError: a topic has the wrong settings.

    """
    logs.configure()
    gc.set_threshold(*GC_THRESHOLD)
    if not _INSTANCE.fullmatch(instance) or set(instance) <= {"."}:
        raise UsageError(
            f"{instance!r} is not a valid instance name", "use letters, digits, dots, dashes and underscores"
        )
    config = WorkerConfig(
        kafka=kafka,
        topics=settings.topics(),
        directory=settings.data_dir / "workers" / instance,
        book=Book(read_overlay(settings.prices) if settings.prices else None),
        window=Window(int(settings.lateness.total_seconds() * 1000)),
        instance=instance,
        static=settings.worker_membership == "static",
        calls=CallConfig(
            hold_ms=int(settings.calls_hold.total_seconds() * 1000),
            lateness_ms=int(settings.lateness.total_seconds() * 1000),
        ),
        session_timeout=settings.worker_session_timeout.total_seconds(),
        accept_loss=accept_loss,
        standby=standby or settings.worker_standby,
    )
    with harness.owned(config.directory, "a worker", "give each worker a different --instance name"):
        harness.run("worker", Worker, config, ops=(settings.ops_host, ops_port))
