"""Assembles the gateway from its parts, and starts and stops them in the right order."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CollectorRegistry

from tallystream.schemas.errors import UsageError
from tallystream.schemas.status import GatewayStatus
from tallystream.streams.gateway.acceptance import Acceptance
from tallystream.streams.gateway.auth import Authenticator
from tallystream.streams.gateway.budget import Budget
from tallystream.streams.gateway.config import GatewayConfig
from tallystream.streams.gateway.connections.activity import ActivityLog
from tallystream.streams.gateway.connections.cache import Registry
from tallystream.streams.gateway.delivery.drain import Drain
from tallystream.streams.gateway.delivery.group_commit import Delivery
from tallystream.streams.gateway.delivery.producer import Link
from tallystream.streams.gateway.http.handler import Handler
from tallystream.streams.gateway.http.responses import Replies
from tallystream.streams.gateway.http.server import HttpServer
from tallystream.streams.gateway.ingest import Messages
from tallystream.streams.gateway.message import partition_counts
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.quarantine import Quarantine
from tallystream.streams.gateway.quotas import Quotas, Turns
from tallystream.streams.gateway.spool.files import Owner
from tallystream.streams.gateway.spool.spool import Spool
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.service.clock import Clock, SystemClock
from tallystream.streams.service.ops import Health

if TYPE_CHECKING:
    from tallystream.streams.gateway.grpc import GrpcServer

ADOPT_EVERY = 30.0
RETRY_REJECTED_EVERY = 600.0
STALLED_AFTER = 10.0
"""Seconds after which a round that is neither acknowledged nor spooled makes the process unhealthy."""
log = structlog.get_logger()


class Gateway:
    """The gateway service: `run` it until it is cancelled, or `start` and `stop` it."""

    def __init__(self, config: GatewayConfig, registry: CollectorRegistry, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self.metrics = Metrics(registry)
        self._tasks: list[asyncio.Task[None]] = []
        self._failed = ""
        self._opened = False
        self._listening = False
        self._served_before = False
        self.link = Link(config, self.metrics, self._clock)
        self.registry = Registry(config, self.metrics, self._clock)
        self.spool: Spool
        self.delivery: Delivery
        self._drain: Drain
        self._quarantine: Quarantine
        self._activity: ActivityLog
        self._acceptance: Acceptance
        self._grpc: GrpcServer | None = None
        """None when OTLP/gRPC is not served: importing the library takes 10 MiB."""
        self._handler: Handler
        self._http: HttpServer

    async def run(self) -> None:
        """Serve until cancelled; accepted requests are answered before this returns.

        Raises:
            UnfitError: the spool's directory, or the topics of a cluster that answers, are unsuitable.
            UsageError: it cannot listen on the address, or the certificate cannot be used.

        """
        await self.start()
        try:
            await asyncio.Event().wait()
        finally:
            await self.stop()

    @property
    def url(self) -> str:
        """Return `http://host:port`, once started."""
        host, port = self._http.address
        return f"{self._http.scheme}://[{host}]:{port}" if ":" in host else f"{self._http.scheme}://{host}:{port}"

    @property
    def grpc(self) -> str | None:
        """Return `host:port` of OTLP/gRPC, None when it is not served."""
        host, port = self._http.address[0], None if self._grpc is None else self._grpc.port
        return None if port is None else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self) -> None:
        """Listen as soon as acknowledged requests cannot be lost; Kafka may be unavailable.

        Raises:
            UnfitError: the topics of a cluster that answers are unsuitable, and this gateway has not served before.
            UsageError: it cannot listen on the address, or the certificate cannot be used.

        """
        config = self._config
        self.registry.load()
        self._served_before = self.registry.known
        self.spool = await Spool.open(
            config.directory,
            Owner(
                config.topics.prefix,
                frozenset(partition_counts(config.topics)),
                lambda message: self.link.place_of(message).partition,
                self.registry.last_met,
                config.addresses,
            ),
            max_bytes=config.spool_max_bytes,
            quarantine_max_bytes=config.quarantine_max_bytes,
            clock=self._clock,
            salvaged=self.metrics.salvaged.inc,
        )
        self._build()
        self._opened = True
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        config = self._config
        await self._activity.load(await self.spool.meta("gateway", self._name()))
        self._spawn("link", self.link.run())
        self._spawn("delivery", self.delivery.run())
        self._spawn("drain", self._drain.run())
        self._spawn("quarantine", self._quarantine.run())
        self._spawn("activity", self._activity.run())
        self._spawn("registry", self._follow())
        self._spawn("upkeep", self._upkeep())
        if not self.registry.known:
            # Without a snapshot every id would be unknown, so wait for Kafka first, if it is available.
            await self._first_contact()
            if self.link.live:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(config.first_contact):
                        await self.registry.following.wait()
        try:
            await self._http.start()
        except OSError as exc:
            raise UsageError(
                f"cannot listen on {config.host}:{config.port}: {exc.strerror or exc}",
                "choose another with --port, or stop what listens there",
            ) from exc
        await self._start_grpc()
        self._listening = True
        log.info("gateway_listening", url=self.url, spool=str(self.spool.path), spooled=self.spool.level.rows)
        await self._first_contact()

    async def _start_grpc(self) -> None:
        config = self._config
        if self._grpc is None or config.grpc_port is None:
            return
        try:
            await self._grpc.start(config.grpc_port)
        except OSError as exc:
            if config.grpc_required:
                raise UsageError(
                    f"cannot listen on {config.host}:{config.grpc_port} for gRPC",
                    "choose another with --grpc-port (0: no gRPC), or stop what listens there",
                ) from exc
            log.warning("grpc_not_served", port=config.grpc_port, hint="set TALLYSTREAM_GRPC_PORT to another port")

    async def _first_contact(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.first_contact):
                await self.link.first_attempt.wait()
        if self.link.unfit is not None:
            if not self._served_before:
                raise self.link.unfit
            # Clients already send to this gateway, and some never retry: spool their data until the topics are
            # repaired.
            log.error("topics_unfit", why=self.link.unfit.message, next=self.link.unfit.hint)

    async def _met(self, cluster_id: str) -> None:
        """Adopt the state that belongs to this cluster, and ignore that of others."""
        if await self.spool.claim(cluster_id):
            self._activity.forget(await self.spool.meta("gateway", self._name()))
        self.registry.met(cluster_id)

    @staticmethod
    def _name() -> str:
        return f"gw-{secrets.token_hex(4)}"

    def _build(self) -> None:
        config = self._config
        topics = config.topics
        self.delivery = Delivery(self.link, self.spool, self.metrics, self._clock)
        self._drain = Drain(self.spool, self.link, self.delivery, self.metrics)
        self._activity = ActivityLog(topics.activity.name, self.link, self.spool, self._clock)
        messages = Messages(topics, config.user, self._clock)
        self._quarantine = Quarantine(self.spool, self.registry, messages, self._activity, self.metrics)
        self.link.met = self._met
        self.link.changed = self._drain.wake
        self.registry.kafka_answers = lambda: self.link.live
        self.registry.changed = self._quarantine.wake
        replies = Replies(self._clock)
        self._acceptance = Acceptance(
            config.max_body_bytes,
            Authenticator(self.registry, self._clock),
            self.delivery,
            self._quarantine,
            self._activity,
            messages,
            Quotas(config.quota, self._clock),
            Turns(self._clock),
            self.metrics,
            witnessed=config.witnessed,
        )
        budget = Budget(config.max_held_bytes, config.retry_after)
        self._handler = Handler(config, self._acceptance, budget, replies, self.metrics, self._all_ready)
        if config.grpc_port is not None:
            from tallystream.streams.gateway.grpc import GrpcServer

            self._grpc = GrpcServer(config, self._acceptance, budget, self.metrics)
        self._http = HttpServer(config, self._handler, replies, self.metrics, self._clock)
        self._gauges()

    def _in_progress(self) -> int:
        return self._handler.in_progress + (0 if self._grpc is None else self._grpc.in_progress)

    def _gauges(self) -> None:
        self.metrics.watch(
            spool_messages=lambda: self.spool.level.rows,
            spool_bytes=lambda: self.spool.level.bytes,
            spool_max_bytes=lambda: self._config.spool_max_bytes,
            spool_oldest_age_seconds=lambda: self._age(self.spool.level.oldest_ns),
            quarantine_requests=lambda: self.spool.quarantine_level.rows,
            quarantine_bytes=lambda: self.spool.quarantine_level.bytes,
            http_connections=lambda: self._http.connections,
            requests_in_progress=self._in_progress,
            spool_writable=lambda: self.spool.writable,
            spool_files_unopened=lambda: self.spool.surroundings.unopened,
            spool_files_damaged=lambda: self.spool.surroundings.damaged,
            spool_foreign_messages=lambda: self.spool.surroundings.foreign_messages,
            kafka_live=lambda: self.link.live,
            partitions_away=lambda: self.link.away,
            topics_unfit=lambda: self.link.unfit is not None,
            ack_timeout_seconds=lambda: self.link.timeout.seconds,
            connections=lambda: len(self.registry.cache),
        )

    def _age(self, oldest_ns: int) -> float:
        return max(0.0, (self._clock.now_ns() - oldest_ns) / 1e9) if oldest_ns else 0.0

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._failed = f"{task.get_name()} ended: {type(exc).__name__}"
            log.error("gateway_task_failed", task=task.get_name(), exc_info=exc)

    async def _follow(self) -> None:
        # The topic exists once the producer has connected; until then following it fails and is retried.
        await self.link.first_attempt.wait()
        await self.registry.run()

    async def _upkeep(self) -> None:
        elapsed = 0.0
        while True:
            await asyncio.sleep(ADOPT_EVERY)
            await self.spool.look_around()
            elapsed += ADOPT_EVERY
            self._http.refresh_certificate()
            if elapsed >= RETRY_REJECTED_EVERY:
                elapsed = 0.0
                self.retry_rejected()

    def retry_rejected(self) -> None:
        """Send again the messages that Kafka has refused; this also happens every ten minutes."""
        self._drain.retry_rejected()

    def healthy(self) -> Health:
        """Return whether the gateway makes progress: unhealthy when requests wait without being acknowledged or
        spooled.
        """
        if self._failed:
            return Health(ok=False, why=self._failed)
        if not self._opened:
            return Health(ok=True, why="the spool is being opened")
        waiting = self.delivery.waiting
        if waiting > STALLED_AFTER:
            return Health(ok=False, why=f"requests have been waiting {waiting:.0f} s for Kafka or the spool")
        return Health(ok=True)

    def ready(self) -> Health:
        """Return whether requests are accepted and connections known; Kafka may be unavailable."""
        if not self._listening:
            return Health(ok=False, why="not listening yet, or already stopping")
        if not self.registry.known:
            return Health(ok=False, why="connections are not known yet: Kafka has not answered, and no snapshot exists")
        if self.link.unfit is not None and self.healthy().ok:
            return Health(ok=True, why=f"everything is spooled: {self.link.unfit.message}")
        return self.healthy()

    def _all_ready(self) -> Health:
        own, file = self.ready(), self._config.ready_file
        if own.ok and file is not None and not file.exists():
            return Health(ok=False, why="other components are not ready yet")
        return own

    def status(self) -> GatewayStatus | None:
        """Return the data that is not in Kafka yet; None until the spool has been opened."""
        if not self._opened:
            return None
        # Read the surroundings first: what a look has just adopted from there must be in the levels.
        around = self.spool.surroundings
        level, held = self.spool.level, self.spool.quarantine_level
        return GatewayStatus(
            requests_in_progress=self._in_progress(),
            quarantine_requests=held.rows,
            quarantine_bytes=held.bytes,
            spool_messages=level.rows,
            spool_bytes=level.bytes,
            spool_max_bytes=self._config.spool_max_bytes,
            spool_oldest_age_seconds=self._age(level.oldest_ns),
            spool_writable=self.spool.writable,
            spool_files_unopened=around.unopened,
            spool_files_damaged=around.damaged,
            spool_foreign_messages=around.foreign_messages,
            topics_unfit=self.link.unfit is not None,
            partitions_away=self.link.away,
            kafka_live=self.link.live,
            connections=len(self.registry.cache),
        )

    async def stop(self) -> None:
        """Answer accepted requests, drain the spool to Kafka for a bounded time, and leave the rest in the spool."""
        self._listening = False
        if not self._opened:
            return
        stops = [self._http.stop()]
        if self._grpc is not None:
            stops.append(self._grpc.stop())
        await asyncio.gather(*stops)
        self._acceptance.close()
        await self._last_drain()
        # The producer ends last; its batches in flight are in the spool as well.
        for task in [*self._tasks[1:], *self._tasks[:1]]:
            await cancel(task)
        left = self.spool.level.rows
        await self.spool.close()
        log.info("gateway_stopped", left_in_spool=left)

    async def _last_drain(self) -> None:
        if self.link.live:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.stop_timeout):
                    await self.spool.emptied.wait()
        await self._activity.flush(within=2.0)
