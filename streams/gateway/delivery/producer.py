"""The gateway's producers with their circuit breaker: idempotent, acks=all, replaced when one fails or is stuck.

Guarantees of the library (aiokafka 0.14): an idempotent batch is retried forever with its sequence number, so a
broker's restart neither loses nor duplicates it. But after a batch has failed permanently the producer's sequence
numbers have a gap (message_accumulator.py `_pop_batch`), and every later batch of that partition would fail. So the
producers are replaced after any failure, and after a batch has had no ack for `stuck_after` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cache, partial

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, LeaderNotAvailableError, NotLeaderForPartitionError
from aiokafka.producer.message_accumulator import BatchBuilder

from tallystream.schemas.catalogue import SCHEMA_HEADER
from tallystream.schemas.errors import UnfitError, UnreachableError
from tallystream.streams.gateway.config import GatewayConfig
from tallystream.streams.gateway.delivery.ack_timeout import AckTimeout
from tallystream.streams.gateway.delivery.batch import ProducerBatch
from tallystream.streams.gateway.delivery.channels import (
    CONNECT_TIMEOUT,
    ProducerChannel,
    abandon_all,
    channel_of,
    open_channels,
)
from tallystream.streams.gateway.errors import ProducerLostError
from tallystream.streams.gateway.message import Message, Place, partition_counts, place_of, written_topics
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.identity import read_identity
from tallystream.streams.kafka.task_watch import find_ended_task
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.service.backoff import Backoff
from tallystream.streams.service.clock import Clock

METADATA_TIMEOUT = 5.0
ALONE = 6
"""Factor by which a batch may wait longer while its broker acknowledges batches of other partitions."""
MAX_PATIENCE = 16
"""Maximum factor on `stuck_after`: after each stuck producer the timeout of the next one is doubled."""
_NO_LEADER = (LeaderNotAvailableError, NotLeaderForPartitionError)
"""Errors of a batch whose partition had no leader for too long; Kafka did not refuse the batch itself."""
BACKOFF = Backoff(first=0.1, longest=2.0)
log = structlog.get_logger()


class Link:
    """Run `run()` as a task; `send` whenever `connected`.

    The circuit breaker works per partition: a partition without a leader or with a late batch is not written until that
    is over, and the others continue. A late batch also puts its broker in doubt, and the broker's other partitions are
    not written until it acknowledges anything. So the failure of a broker is detected once, not once per partition.
    `changed` is called when any of that may have changed; `met` is called with the cluster's id before the first send.
    """

    def __init__(self, config: GatewayConfig, metrics: Metrics, clock: Clock) -> None:
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._partitions = partition_counts(config.topics)
        self._channels: tuple[ProducerChannel, ...] = ()
        self._outstanding: dict[ProducerBatch, None] = {}
        self._late: dict[Place, set[ProducerBatch]] = {}
        self._doubted: dict[int, set[ProducerBatch]] = {}
        """By broker: late batches in flight since the broker's last acknowledgement."""
        self._acked_at: dict[int, float] = {}
        self._transmissions: set[asyncio.Task[None]] = set()
        self._broken = asyncio.Event()
        self._patience = config.stuck_after
        self._was_live = False
        self._was_connected = False
        self.timeout = AckTimeout(config.ack_timeout, config.ack_timeout_max)
        self.unfit: UnfitError | None = None
        """Set while the topics of the cluster are unsuitable: then nothing is sent."""
        self.first_attempt = asyncio.Event()
        """Set once the first attempt to connect has succeeded or failed."""
        self.changed: Callable[[], None] = lambda: None
        self.met: Callable[[str], Awaitable[None]] = _nobody

    @property
    def connected(self) -> bool:
        """Return whether the producers are ready to send."""
        return bool(self._channels)

    @property
    def live(self) -> bool:
        """Return whether Kafka answers in time, that is, whether any partition accepts messages."""
        return self.away < sum(self._partitions.values())

    @property
    def away(self) -> int:
        """Return how many partitions do not accept messages now."""
        places = (Place(topic, partition) for topic, count in self._partitions.items() for partition in range(count))
        return sum(not self.takes(place) for place in places)

    @property
    def waiting(self) -> float:
        """Return how many seconds the oldest batch has been waiting for its ack; 0 without such a batch."""
        for batch in self._outstanding:
            return self._clock.monotonic() - batch.since
        return 0.0

    def place_of(self, message: Message) -> Place:
        """Return the topic and partition of a message."""
        return place_of(message, self._partitions)

    def reachable(self, place: Place) -> bool:
        """Return whether a partition has a leader and no late batch, so that spooled messages for it may be tried."""
        return place not in self._late and self._leader(place) >= 0

    def takes(self, place: Place) -> bool:
        """Return whether a partition is expected to acknowledge in time."""
        if place in self._late:
            return False
        leader = self._leader(place)
        return leader >= 0 and leader not in self._doubted

    def _leader(self, place: Place) -> int:
        """Return the leader of the partition, -1 without a leader."""
        if not self._channels:
            return -1
        cluster = self._channels[channel_of(place)].producer.client.cluster
        found: int | None = cluster.leader_for_partition(place)
        return -1 if found is None else found

    def missed(self, batches: Iterable[ProducerBatch]) -> None:
        """Note that batches were not acknowledged in time: the spool takes over for their partitions."""
        for batch in batches:
            if batch.late or batch.settled:
                continue
            batch.late = True
            self._late.setdefault(batch.place, set()).add(batch)
            self._doubted.setdefault(batch.leader, set()).add(batch)
            log.warning("partition_away", topic=batch.place.topic, partition=batch.place.partition)
        self._change()

    def _no_longer_late(self, batch: ProducerBatch) -> None:
        late = self._late[batch.place]
        late.discard(batch)
        if not late:
            del self._late[batch.place]

    def _change(self) -> None:
        if self.live is not self._was_live:
            self._was_live = not self._was_live
            if self._was_live:
                log.info("kafka_live")
            elif self.waiting or self._broken.is_set():
                log.warning("kafka_away", waiting_seconds=round(self.waiting, 3))
        self.changed()

    def send(self, messages: Sequence[Message]) -> list[ProducerBatch]:
        """Send the messages, one record batch a partition (more when they are large), without waiting.

        Raises:
            ProducerLostError: not connected.

        """
        groups: dict[Place, list[Message]] = {}
        for message in messages:
            groups.setdefault(self.place_of(message), []).append(message)
        return self.send_grouped(groups)

    def send_grouped(self, groups: Mapping[Place, Sequence[Message]]) -> list[ProducerBatch]:
        """Do the same as `send` with the messages of each partition.

        Raises:
            ProducerLostError: not connected.

        """
        channels = self._channels
        if not channels:
            raise ProducerLostError
        now = self._clock.monotonic()
        batches: list[ProducerBatch] = []
        direct: tuple[dict[int, dict[Place, object]], ...] = tuple({} for _ in channels)
        try:
            for place, group in groups.items():
                channel = channel_of(place)
                producer, sender = channels[channel]
                parcels: list[tuple[ProducerBatch, BatchBuilder]] = []
                builder = None
                for message in group:
                    headers = _headers(message.schema)
                    if builder is None or not builder.append(
                        timestamp=None, key=message.key, value=message.value, headers=headers
                    ):
                        builder = producer.create_batch()
                        builder.append(timestamp=None, key=message.key, value=message.value, headers=headers)
                        parcels.append((ProducerBatch(place, self._leader(place), now), builder))
                    parcels[-1][0].messages.append(message)
                for batch, _ in parcels:
                    self._outstanding[batch] = None
                    batches.append(batch)
                if len(parcels) == 1 and sender.send(
                    place, parcels[0][1], partial(self._settle, producer, parcels[0][0]), direct[channel]
                ):
                    continue
                # One task per partition, because handing over waits while the partition has an unsent batch.
                task = asyncio.get_running_loop().create_task(self._transmit(producer, parcels))
                self._transmissions.add(task)
                task.add_done_callback(self._transmissions.discard)
        finally:
            # also after an error, because they have their sequence numbers
            for channel, requests in enumerate(direct):
                for broker, taken in requests.items():
                    channels[channel].sender.request(broker, taken)
        return batches

    async def _transmit(self, producer: AIOKafkaProducer, parcels: list[tuple[ProducerBatch, BatchBuilder]]) -> None:
        try:
            for batch, builder in parcels:
                sent = await producer.send_batch(builder, batch.place.topic, partition=batch.place.partition)
                sent.add_done_callback(partial(self._settle, producer, batch))
        except (KafkaError, OSError, AssertionError) as exc:
            # aiokafka raises AssertionError for a partition that is missing in its metadata.
            self._break(producer, exc)

    def _settle(self, producer: AIOKafkaProducer, batch: ProducerBatch, sent: asyncio.Future[object]) -> None:
        exc = None if sent.cancelled() else sent.exception()
        if sent.cancelled() or batch.settled:
            return
        self._outstanding.pop(batch, None)
        if exc is not None:
            # An idempotent batch is retried unless the broker's error is not retriable.
            refused = "" if isinstance(exc, _NO_LEADER) else type(exc).__name__
            batch.settle(ProducerLostError(rejected=refused))
            self._break(producer, exc)
            return
        now = self._clock.monotonic()
        self._acked_at[batch.leader] = now
        self.timeout.measured(now - batch.since)
        self._metrics.acked(batch.place.topic, len(batch.messages), now - batch.since)
        doubted = self._doubted.pop(batch.leader, None) is not None
        if batch.late:
            self._no_longer_late(batch)
        batch.settle()
        if batch.late or doubted:
            self._change()

    def _break(self, producer: AIOKafkaProducer, exc: BaseException) -> None:
        if any(channel.producer is producer for channel in self._channels) and not self._broken.is_set():
            log.error("producer_failed", error=type(exc).__name__, detail=str(exc))
            self._broken.set()

    async def run(self) -> None:
        """Keep the producers connected until cancelled; then abandon them."""
        attempt = 0
        while True:
            try:
                channels = await self._connect()
            except (KafkaError, OSError, TimeoutError, UnreachableError, UnfitError) as exc:
                self.unfit = exc if isinstance(exc, UnfitError) else None
                if attempt % 15 == 0:
                    log.warning("kafka_unreachable", error=type(exc).__name__, detail=str(exc))
                await self._pause(attempt)
                attempt += 1
                continue
            finally:
                self.first_attempt.set()
            attempt = 0
            self.unfit = None
            try:
                await self._serve(channels)
            finally:
                self._channels = ()
                self._lose_outstanding()
                self._change()
                await abandon_all(channel.producer for channel in channels)
            self._metrics.producers_replaced.inc()
            await self._pause(0)

    async def _pause(self, attempt: int) -> None:
        await asyncio.sleep(BACKOFF.delay(attempt))

    async def _connect(self) -> tuple[ProducerChannel, ...]:
        """Create missing topics, check the existing ones, and start the producers."""
        topics = self._config.topics
        kafka = self._config.kafka
        specs = (*written_topics(topics), topics.connections)
        await ensure(kafka, specs, seconds=CONNECT_TIMEOUT, strict=not self._was_connected)
        identity = await read_identity(kafka, topics.prefix, (), seconds=CONNECT_TIMEOUT)
        await self.met(identity.cluster_id)
        return await open_channels(kafka, self._partitions)

    async def _serve(self, channels: tuple[ProducerChannel, ...]) -> None:
        self._broken = asyncio.Event()
        self._channels = channels
        self._was_connected = True
        log.info("kafka_connected")
        self._change()
        while not self._broken.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._broken.wait()
            for producer, _ in channels:
                if ended := find_ended_task(producer):
                    self._break(producer, KafkaError(ended))
            if stuck := self._stuck():
                self._patience = min(2 * self._patience, MAX_PATIENCE * self._config.stuck_after)
                self._break(channels[0].producer, TimeoutError(stuck))
            elif not self._late:
                self._patience = self._config.stuck_after
            await self._look_for_leaders()

    def _stuck(self) -> str:
        """Return why the producer should be given up, or "".

        A single partition may be in trouble (too few replicas in sync): as long as its broker acknowledges others it
        gets six times as long, because replacing the producer briefly interrupts every partition.
        """
        now = self._clock.monotonic()
        for batch in self._outstanding:
            waiting = now - batch.since
            if waiting <= self._patience:
                break
            alone = self._acked_at.get(batch.leader, 0.0) > batch.since
            if waiting > self._patience * (ALONE if alone else 1):
                return f"no ack of {batch.place.topic}-{batch.place.partition} for {waiting:.0f} s"
        return ""

    async def _look_for_leaders(self) -> None:
        """Refresh the metadata while a partition has no leader: aiokafka does so only when it wants to send, which we
        do not.
        """
        places = [Place(topic, partition) for topic, count in self._partitions.items() for partition in range(count)]
        missing = [place for place in places if self._leader(place) < 0]
        if not missing or self._broken.is_set():
            return
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(METADATA_TIMEOUT):
                for number in {channel_of(place) for place in missing}:
                    await self._channels[number].producer.client.force_metadata_update()
        if any(self._leader(place) >= 0 for place in missing):
            self._change()

    def _lose_outstanding(self) -> None:
        for task in self._transmissions:
            task.cancel()
        outstanding, self._outstanding = self._outstanding, {}
        self._late.clear()
        self._doubted.clear()
        for batch in outstanding:
            batch.settle(ProducerLostError())


@cache
def _headers(schema: str) -> list[tuple[str, bytes]]:
    return [(SCHEMA_HEADER, schema.encode())]


async def _nobody(_: str) -> None:
    pass
