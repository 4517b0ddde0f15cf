"""The embedded Kafka as a component: the broker with its health, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from types import FrameType

import structlog
from aiokafka.admin import AIOKafkaAdminClient

from tallystream.components import logs
from tallystream.schemas.errors import UnreachableError
from tallystream.settings.settings import Settings
from tallystream.streams.embedded import EmbeddedKafka
from tallystream.streams.embedded.readiness import can_join
from tallystream.streams.kafka.admin import new_admin
from tallystream.streams.kafka.lifecycle import cancel, close, start
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.service.ops import Health, OpsServer

log = structlog.get_logger()

POLL_SECONDS = 0.1
PROBE_SECONDS = 1.0
SILENT_SECONDS = 15.0
"""A broker that answers nothing for that long is not busy, it hangs."""


def run(settings: Settings, *, port: int, ops_port: int) -> None:
    """Run the broker on 127.0.0.1:`port` (0: the last one, else a free one), data in DATA_DIR/kafka.

    Blocks until SIGTERM or SIGINT.

    Raises:
        UsageError: the extra `embedded` is missing, the data dir is in use, a port is taken.
        UnreachableError: the jars could not be downloaded, the broker was not ready in time, or it ended by itself.
        UnfitError: the broker does not start on this data.

    """
    logs.configure()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # Told to stop before the broker is ready: it passes every `except Exception` on its way out.
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    broker = EmbeddedKafka(
        settings.data_dir / "kafka", cache_dir=settings.cache_dir, port=port, mirror=settings.maven_mirror, output=None
    )
    try:
        with broker:
            asyncio.run(_serve(broker, (settings.ops_host, ops_port)))
    except SystemExit:
        return


async def _serve(broker: EmbeddedKafka, ops_at: tuple[str, int]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    probe = _Probe(broker.bootstrap)
    ops = OpsServer(probe.healthy, probe.ready, host=ops_at[0], port=ops_at[1])
    await ops.listen()
    log.info("kafka is ready", bootstrap=broker.bootstrap, jvm_pid=broker.pid, ops=ops.url)
    asking = asyncio.create_task(probe.run())
    try:
        while not stop.is_set():
            if (code := broker.poll()) is not None:
                raise UnreachableError(
                    f"Kafka ended by itself with {code}", "its log says why; starting it again is safe"
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await stop.wait()
    finally:
        await cancel(asking)
        await probe.close()
        await ops.stop()
    log.info("kafka stops")


class _Probe:
    """Asks the broker once in a while what every worker needs of it."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._admin: AIOKafkaAdminClient | None = None
        self._answered = time.monotonic()
        self._last = True

    async def run(self) -> None:
        while True:
            await self.ask()
            await asyncio.sleep(PROBE_SECONDS)

    async def ask(self) -> None:
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                if self._admin is None:
                    self._admin = new_admin(KafkaSettings(self._bootstrap))
                    await start(self._admin)
                self._last = await can_join(self._admin)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is an answer that did not come
            log.warning("kafka does not answer", error=type(exc).__name__)
            self._last = False
            await self.close()
        if self._last:
            self._answered = time.monotonic()

    async def close(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            await close(admin)

    def ready(self) -> Health:
        return Health(self._last, "" if self._last else "no group can join")

    def healthy(self) -> Health:
        silent = time.monotonic() - self._answered
        return Health(silent < SILENT_SECONDS, f"last answer {silent:.0f} s ago")
