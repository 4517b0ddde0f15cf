"""The way to Kafka: one idempotent producer, acks from all in-sync replicas, made anew when it fails or is stuck.

What the library promises and does not (aiokafka 0.14): an idempotent batch is retried for ever with its sequence
number, so a broker's restart neither loses nor doubles it; but after a batch has failed for good the producer's
sequence numbers have a hole (message_accumulator.py `_pop_batch`), and every later batch of that partition would fail.
So any failure is the end of the producer, and so is a batch without an ack for `stuck_after` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tallystream.schemas.catalogue import SCHEMA_HEADER
from tallystream.schemas.errors import UnfitError, UnreachableError
from tallystream.streams.gateway.config import GatewayConfig
from tallystream.streams.gateway.errors import ProducerLostError
from tallystream.streams.gateway.message import Message, partition_counts, partition_of
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.producer import GATEWAY, new_producer
from tallystream.streams.kafka.topics import ensure
from tallystream.streams.service.backoff import Backoff
from tallystream.streams.service.clock import Clock

BATCH_BYTES = GATEWAY.batch_bytes
"""Of one Kafka record batch: below every broker's default limit of 1 MiB."""
CONNECT_TIMEOUT = 15.0
BACKOFF = Backoff(first=0.1, longest=2.0)
log = structlog.get_logger()


class Batch:
    """Messages of one partition on their way. `acked` resolves to None, or raises ProducerLostError."""

    __slots__ = ("acked", "messages", "partition", "since", "topic")

    def __init__(self, topic: str, partition: int, acked: asyncio.Future[None], since: float) -> None:
        self.topic = topic
        self.partition = partition
        self.messages: list[Message] = []
        self.acked = acked
        self.since = since


class Link:
    """Run `run()` as a task; `send` whenever `connected`.

    `live` says whether Kafka answers in time: cleared by whoever has waited too long (`missed`), set by the next ack
    that leaves no late batch outstanding. `changed` is called when `connected` or `live` may have changed.
    """

    def __init__(self, config: GatewayConfig, metrics: Metrics, clock: Clock) -> None:
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._partitions = partition_counts(config.topics)
        self._producer: AIOKafkaProducer | None = None
        self._outstanding: dict[Batch, None] = {}
        self._transmissions: set[asyncio.Task[None]] = set()
        self._broken = asyncio.Event()
        self.live = False
        self.unfit: UnfitError | None = None
        """Set while the topics of the cluster do not fit: nothing is sent there then."""
        self.first_attempt = asyncio.Event()
        """Set once the first attempt to connect has ended, well or not."""
        self.may_go_live_at_once: Callable[[], bool] = lambda: True
        """Asked on connecting: false leaves it to the first ack."""
        self.changed: Callable[[], None] = lambda: None

    @property
    def connected(self) -> bool:
        """Return whether there is a producer to send with."""
        return self._producer is not None

    @property
    def waiting(self) -> float:
        """Return how many seconds the oldest batch has been waiting for its ack; 0 when none is."""
        for batch in self._outstanding:
            return self._clock.monotonic() - batch.since
        return 0.0

    def missed(self) -> None:
        """Note that Kafka has not answered in time: the spool takes over until an ack."""
        if self.live:
            self.live = False
            log.warning("kafka_away", waiting_seconds=round(self.waiting, 3))
            self.changed()

    def send(self, messages: Sequence[Message]) -> list[Batch]:
        """Send the messages, one record batch a partition (more when they are large), without waiting.

        Raises:
            ProducerLostError: there is no producer.

        """
        producer = self._producer
        if producer is None:
            raise ProducerLostError
        now = self._clock.monotonic()
        loop = asyncio.get_running_loop()
        groups: dict[tuple[str, int], list[Message]] = {}
        for message in messages:
            place = (message.topic, partition_of(message.key, self._partitions[message.topic]))
            groups.setdefault(place, []).append(message)
        batches: list[Batch] = []
        builders = []
        for (topic, partition), group in groups.items():
            builder = None
            for message in group:
                headers = [(SCHEMA_HEADER, message.schema.encode())]
                if builder is None or not builder.append(
                    timestamp=None, key=message.key, value=message.value, headers=headers
                ):
                    builder = producer.create_batch()
                    builder.append(timestamp=None, key=message.key, value=message.value, headers=headers)
                    builders.append(builder)
                    batches.append(Batch(topic, partition, loop.create_future(), now))
                batches[-1].messages.append(message)
        self._outstanding.update(dict.fromkeys(batches))
        task = loop.create_task(self._transmit(producer, list(zip(batches, builders, strict=True))))
        self._transmissions.add(task)
        task.add_done_callback(self._transmissions.discard)
        return batches

    async def _transmit(self, producer: AIOKafkaProducer, parcels: list[tuple[Batch, object]]) -> None:
        try:
            for batch, builder in parcels:
                sent = await producer.send_batch(builder, batch.topic, partition=batch.partition)
                sent.add_done_callback(partial(self._settle, producer, batch))
        except (KafkaError, OSError, AssertionError) as exc:
            # AssertionError is aiokafka's word for a partition that its metadata does not show.
            self._break(producer, exc)

    def _settle(self, producer: AIOKafkaProducer, batch: Batch, sent: asyncio.Future[object]) -> None:
        exc = None if sent.cancelled() else sent.exception()
        if sent.cancelled() or batch.acked.done():
            return
        self._outstanding.pop(batch, None)
        if exc is not None:
            # An idempotent batch is retried unless the broker says that this is no use.
            batch.acked.set_exception(ProducerLostError(rejected=type(exc).__name__))
            batch.acked.exception()
            self._break(producer, exc)
            return
        batch.acked.set_result(None)
        self._metrics.acked(batch.topic, len(batch.messages), self._clock.monotonic() - batch.since)
        if not self.live and self.waiting < self._config.ack_timeout:
            self._go_live()

    def presume_live(self) -> None:
        """Send to Kafka again without an ack to go by: it is connected, and there is nothing to try it with."""
        if self.connected and not self.live and not self._outstanding:
            self._go_live()

    def _go_live(self) -> None:
        self.live = True
        log.info("kafka_live")
        self.changed()

    def _break(self, producer: AIOKafkaProducer, exc: BaseException) -> None:
        if self._producer is producer and not self._broken.is_set():
            log.error("producer_failed", error=type(exc).__name__, detail=str(exc))
            self._broken.set()

    async def run(self) -> None:
        """Keep a producer until cancelled; then abandon it."""
        attempt = 0
        while True:
            try:
                producer = await self._connect()
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
                await self._serve(producer)
            finally:
                self._producer = None
                self._lose_outstanding()
                self.changed()
                await abandon(producer)
            self._metrics.producers_replaced.inc()
            await self._pause(0)

    async def _pause(self, attempt: int) -> None:
        await asyncio.sleep(BACKOFF.delay(attempt))

    async def _connect(self) -> AIOKafkaProducer:
        """Create what is missing in the cluster, check what is there, and start a producer."""
        topics = self._config.topics
        kafka = self._config.kafka
        await ensure(
            kafka, (topics.usage, topics.connections, topics.activity, topics.deadletters), seconds=CONNECT_TIMEOUT
        )
        producer = new_producer(kafka, GATEWAY)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await start(producer)
                for name in self._partitions:
                    await producer.partitions_for(name)
        except BaseException:
            await abandon(producer)
            raise
        return producer

    async def _serve(self, producer: AIOKafkaProducer) -> None:
        self._broken = asyncio.Event()
        self._producer = producer
        log.info("kafka_connected")
        if not self.live and self.may_go_live_at_once():
            self._go_live()
        self.changed()
        while not self._broken.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._broken.wait()
            if self.waiting > self._config.stuck_after:
                self._break(producer, TimeoutError(f"no ack for {self.waiting:.0f} s"))

    def _lose_outstanding(self) -> None:
        self.live = False
        for task in self._transmissions:
            task.cancel()
        outstanding, self._outstanding = self._outstanding, {}
        for batch in outstanding:
            if not batch.acked.done():
                batch.acked.set_exception(ProducerLostError())
                batch.acked.exception()


async def abandon(producer: AIOKafkaProducer) -> None:
    """Close a producer without delivering what it holds.

    `stop()` alone would wait for every batch, and an idempotent one waits for ever. So the sender is cancelled before:
    once to leave its loop, again to leave the requests it then waits for (aiokafka 0.14, producer/sender.py
    `_sender_routine`); and the batches are forgotten, so that `stop()` has nothing left to wait for.
    """
    sender = producer._sender.sender_task  # noqa: SLF001 - see above
    for _ in range(50):
        if sender is None or sender.done():
            break
        sender.cancel()
        await asyncio.wait([sender], timeout=0.1)
    batches = producer._message_accumulator  # noqa: SLF001 - see above
    batches._batches.clear()  # noqa: SLF001 - see above
    batches._pending_batches.clear()  # noqa: SLF001 - see above
    with contextlib.suppress(Exception):
        await close(producer)
