"""The gateway's registry: the compacted topic `connections` cached in memory by hash, with a snapshot on disk.

Known ids are answered from memory, even when Kafka is unavailable. Only a cache that has just caught up with the end of
the topic may report an id as unknown, so an unknown id triggers a refresh. Waiting requests share a refresh, and
refreshes are rate limited: guessing ids costs Kafka at most one small request every `REFRESH_EVERY` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from tallystream.schemas.connections import Connection
from tallystream.streams.gateway.config import GatewayConfig
from tallystream.streams.gateway.connections import snapshot
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.lifecycle import cancel, close, start
from tallystream.streams.kafka.task_watch import check_tasks
from tallystream.streams.service.clock import Clock
from tallystream.streams.set_aside import set_aside

REFRESH_EVERY = 0.05
AWAY_FOR = 1.0
"""Seconds after a failed refresh until the next attempt; until then requests do not wait for one."""
FETCH_WAIT = 0.25
REQUEST_TIMEOUT = 15.0
"""A broker answers the requests of one connection in order, so the request for the end offset may wait this long behind
an idle fetch."""
SAVE_EVERY = 1.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Grant:
    """The connection of an ingest id's hash; valid until `expires_at` if the id has been rotated."""

    connection: Connection
    expires_at: datetime | None

    @property
    def lasts(self) -> bool:
        """Return whether no end of its validity is known."""
        return self.expires_at is None and self.connection.revoked_at is None


class Cache:
    """Connections by the SHA-256 of each of their ingest ids."""

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self._grants: dict[str, Grant] = {}

    def __len__(self) -> int:
        return len(self.connections)

    def find(self, ingest_sha256: str) -> Grant | None:
        """Return the connection of the id."""
        return self._grants.get(ingest_sha256)

    def apply(self, connection_id: str, connection: Connection | None) -> None:
        """Apply a connection's newest record; None removes the connection."""
        before = self.connections.pop(connection_id, None)
        if before is not None:
            for key in before.ingest:
                self._grants.pop(key.sha256, None)
        if connection is not None:
            self.connections[connection_id] = connection
            for key in connection.ingest:
                self._grants[key.sha256] = Grant(connection, key.expires_at)


class Registry:
    """Run `run()` as a task. `known` tells whether credentials can be checked, by a snapshot or the whole topic."""

    def __init__(self, config: GatewayConfig, metrics: Metrics, clock: Clock) -> None:
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._partition = TopicPartition(config.topics.connections.name, 0)
        self._path = config.directory / f"connections-{config.topics.prefix}.json"
        self._before = config.directory / "connections.json"
        """Location of the snapshot in version 0.1, whatever the prefix."""
        self._cluster_id = ""
        self.last_met = ""
        """The cluster seen at our bootstrap address before this gateway was started; "" if none was."""
        self._consumer: AIOKafkaConsumer | None = None
        self._position = 0
        self._moved = asyncio.Event()
        self._refreshing: asyncio.Task[bool] | None = None
        self._next: asyncio.Task[bool] | None = None
        self._not_before = 0.0
        self._away_until = 0.0
        self._dirty = False
        self.cache = Cache()
        self.known = False
        self.caught_up_once = False
        self.following = asyncio.Event()
        """Set while the topic is followed, that is, after it has been read completely once."""
        self.kafka_answers: Callable[[], bool] = lambda: True
        """Called before a refresh, so that requests do not wait for a Kafka that is known to be unavailable."""
        self.changed: Callable[[], None] = lambda: None
        """Called whenever the cache has caught up with the topic's end."""

    def load(self) -> None:
        """Read the snapshot, if there is one; `met` discards it when it turns out to belong to another cluster."""
        topic = self._partition.topic
        found = snapshot.load(self._path, topic) or snapshot.load(self._before, topic)
        if found is not None:
            self._cluster_id = found.cluster_id
            if found.bootstrap == self._config.kafka.bootstrap:
                self.last_met = found.cluster_id
            for connection in found.connections:
                self.cache.apply(connection.connection_id, connection)
            self.known = True
            log.info("registry_snapshot_loaded", connections=len(self.cache))

    def met(self, cluster_id: str) -> None:
        """Set the cluster's id. Connections of another cluster are discarded."""
        if self._cluster_id not in ("", cluster_id):
            if self.following.is_set():
                self._dirty = True  # the cache is already that of this cluster's topic, which goes on filling it
            else:
                self.known = self.caught_up_once = False
                self.cache = Cache()
            try:
                set_aside(self._path, f"it belongs to the Kafka cluster {self._cluster_id}, this is {cluster_id}")
            except OSError as exc:
                log.warning("registry_snapshot_not_set_aside", error=str(exc))
        self._cluster_id = cluster_id

    def find(self, ingest_sha256: str) -> Grant | None:
        """Return the connection of the id, as far as the cache knows."""
        return self.cache.find(ingest_sha256)

    async def refresh(self) -> bool:
        """Catch up with the current end of the topic; return whether that succeeded within `refresh_timeout`.

        A refresh that began before this call may not have seen what was written since, so callers that find one
        running share the next.
        """
        if self._clock.monotonic() < self._away_until or not self.kafka_answers():
            return False
        running = self._refreshing
        if running is None or running.done():
            self._refreshing = asyncio.create_task(self._refresh(None))
            return await asyncio.shield(self._refreshing)
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._refresh(running))
        return await asyncio.shield(self._next)

    async def _refresh(self, after: asyncio.Task[bool] | None) -> bool:
        if after is not None:
            await asyncio.wait([after])
            self._refreshing, self._next = self._next, None
            if self._clock.monotonic() < self._away_until:
                return False
        if (wait := self._not_before - self._clock.monotonic()) > 0:
            await asyncio.sleep(wait)
        try:
            async with asyncio.timeout(self._config.refresh_timeout):
                await self._catch_up()
        except (KafkaError, OSError, TimeoutError) as exc:
            self._away_until = self._clock.monotonic() + AWAY_FOR
            self._metrics.refreshes.labels("failed").inc()
            log.warning("registry_not_refreshed", error=type(exc).__name__)
            return False
        finally:
            self._not_before = self._clock.monotonic() + REFRESH_EVERY
        self._metrics.refreshes.labels("caught_up").inc()
        return True

    async def _catch_up(self) -> None:
        await self.following.wait()
        consumer = self._consumer
        if consumer is None:
            raise TimeoutError
        end = (await consumer.end_offsets([self._partition]))[self._partition]
        while self._consumer is consumer and self._position < end:
            self._moved.clear()
            await self._moved.wait()
        if self._consumer is not consumer:
            raise TimeoutError

    async def run(self) -> None:
        """Follow the topic until cancelled, and survive outages of Kafka."""
        saver = asyncio.create_task(self._save_often())
        try:
            while True:
                try:
                    await self._follow()
                except (KafkaError, OSError, TimeoutError) as exc:
                    log.debug("registry_interrupted", error=type(exc).__name__)
                await asyncio.sleep(0.5)
        finally:
            await cancel(saver)
            self.save()

    async def _follow(self) -> None:
        """Read the topic from its beginning into a new cache, activate it at the end, then keep up."""
        consumer = new_consumer(self._config.kafka, fetch_wait=FETCH_WAIT, request_timeout=REQUEST_TIMEOUT)
        try:
            async with asyncio.timeout(20.0):
                await start(consumer)
                consumer.assign([self._partition])
                await consumer.seek_to_beginning(self._partition)
                end = (await consumer.end_offsets([self._partition]))[self._partition]
                fresh = Cache()
                position = await consumer.position(self._partition)
                while position < end:
                    position = await self._fetch(consumer, fresh)
            self.cache = fresh
            self._position = position
            self._consumer = consumer
            self.following.set()
            self._away_until = 0.0
            self.known = self.caught_up_once = self._dirty = True
            log.info("registry_caught_up", connections=len(fresh), offset=position)
            self.changed()
            while True:
                self._position = await self._fetch(consumer, fresh)
                self._moved.set()
        finally:
            self.following.clear()
            self._consumer = None
            self._moved.set()
            with contextlib.suppress(Exception):
                await close(consumer)

    async def _fetch(self, consumer: AIOKafkaConsumer, cache: Cache) -> int:
        check_tasks(consumer)
        fetched = await consumer.getmany(self._partition, timeout_ms=1000)
        for record in fetched.get(self._partition, ()):
            self._dirty = True
            connection_id = (record.key or b"").decode(errors="replace")
            try:
                cache.apply(connection_id, Connection.model_validate_json(record.value) if record.value else None)
            except ValidationError as exc:
                # One bad record must not lock out all connections; its connection keeps its previous state.
                log.error("connection_unreadable", offset=record.offset, errors=exc.error_count())  # noqa: TRY400
        position: int = await consumer.position(self._partition)
        return position

    async def _save_often(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY)
            if self._dirty and self.caught_up_once:
                self.save()

    def save(self) -> None:
        """Write the snapshot; a failure is logged and tried again."""
        if not self.caught_up_once or not self._dirty:
            return
        try:
            snapshot.save(
                self._path,
                self._partition.topic,
                self._cluster_id,
                list(self.cache.connections.values()),
                self._config.kafka.bootstrap,
            )
            self._dirty = False
        except OSError as exc:
            log.warning("registry_snapshot_not_written", error=str(exc))
