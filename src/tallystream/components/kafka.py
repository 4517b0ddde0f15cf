"""Runs the embedded Kafka broker, with health checks, until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client import CollectorRegistry

from tallystream.components import harness, logs
from tallystream.schemas.errors import UnreachableError
from tallystream.schemas.status import KafkaStatus
from tallystream.settings.settings import Settings
from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.embedded.readiness import can_join
from tallystream.streams.kafka.admin import new_admin
from tallystream.streams.kafka.lifecycle import cancel, close, start
from tallystream.streams.service.clock import Clock
from tallystream.streams.service.ops import Health

log = structlog.get_logger()

POLL_SECONDS = 0.1
PROBE_SECONDS = 1.0
SILENT_SECONDS = 15.0
"""Seconds without an answer after which a broker counts as hanging rather than busy."""


def run(settings: Settings, *, port: int, ops_port: int) -> None:
    """Run the broker on 127.0.0.1:`port` (0: the previous port, or a free one), with its data in DATA_DIR/kafka.

    Blocks until SIGTERM or SIGINT.

    Raises:
        UsageError: the extra `embedded` is not installed, the data dir is in use, or a port is taken.
        UnreachableError: the jars could not be downloaded, the broker was not ready in time, or it exited by itself.
        UnfitError: the broker cannot start with this data.

    """
    logs.configure()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # If the broker is not ready yet, this must end the start: a BaseException passes every `except Exception`.
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    broker = EmbeddedKafka(
        settings.data_dir / "kafka", cache_dir=settings.cache_dir, port=port, mirror=settings.maven_mirror, output=None
    )
    try:
        with broker:
            harness.run("kafka", BrokerWatch, broker, ops=(settings.ops_host, ops_port))
    except SystemExit:
        return


class BrokerWatch:
    """Periodically sends the broker the requests that every worker depends on, and notices when it exits."""

    def __init__(self, broker: EmbeddedKafka, registry: CollectorRegistry, clock: Clock) -> None:  # noqa: ARG002 - the shape of every component
        self._broker = broker
        self._clock = clock
        self._admin: AIOKafkaAdminClient | None = None
        self._answered = clock.monotonic()
        self._last = True

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            UnreachableError: the broker exited by itself.

        """
        log.info("kafka_ready", bootstrap=self._broker.bootstrap, jvm_pid=self._broker.pid)
        asking = asyncio.create_task(self._keep_asking())
        try:
            while True:
                if (code := self._broker.poll()) is not None:
                    raise UnreachableError(
                        f"Kafka exited by itself with {code}", "its log says why; starting it again is safe"
                    )
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await cancel(asking)
            await self._close()

    async def _keep_asking(self) -> None:
        while True:
            await self._ask()
            await asyncio.sleep(PROBE_SECONDS)

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                if self._admin is None:
                    self._admin = new_admin(self._broker.settings)
                    await start(self._admin)
                self._last = await can_join(self._admin)
        except Exception as exc:  # noqa: BLE001 - whatever the error, there was no answer
            log.warning("kafka_does_not_answer", error=type(exc).__name__)
            self._last = False
            await self._close()
        if self._last:
            self._answered = self._clock.monotonic()

    async def _close(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            await close(admin)

    def ready(self) -> Health:
        """Return whether a consumer group could be joined at the last check."""
        return Health(self._last, "" if self._last else "no consumer group can be joined")

    def healthy(self) -> Health:
        """Return whether the broker answers."""
        silent = self._clock.monotonic() - self._answered
        return Health(silent < SILENT_SECONDS, f"last answer {silent:.0f} s ago")

    def status(self) -> KafkaStatus:
        """Return the address it listens on, and the broker's process."""
        return KafkaStatus(bootstrap=self._broker.bootstrap, jvm_pid=self._broker.pid)
