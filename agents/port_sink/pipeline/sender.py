"""Sends batches to Port: each is planned, sent and noted, and retried as long as that can help."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from tallystream.agents.port_sink.dead_letters import DeadLetterWriter
from tallystream.agents.port_sink.errors import PortError, PortFailureReason
from tallystream.agents.port_sink.metrics import SinkMetrics
from tallystream.agents.port_sink.pipeline.send_queue import QueuedEntity, SendQueue
from tallystream.agents.port_sink.port import api
from tallystream.agents.port_sink.port.client import PortAnswerError, PortClient
from tallystream.agents.port_sink.port.rate import RateLimiter
from tallystream.agents.port_sink.result import SinkResult
from tallystream.agents.port_sink.state.in_doubt import InDoubt
from tallystream.agents.port_sink.state.sent import SentIndex
from tallystream.schemas.errors import RetryableError
from tallystream.streams.leader_election import Fence
from tallystream.streams.service.backoff import Backoff
from tallystream.streams.service.clock import Clock

log = structlog.get_logger()
ATTEMPTS = 12
"""Attempts for an entity that Port does not accept yet; with the delays between them they last an hour."""
ENTITY_BACKOFF = Backoff(first=2.0, longest=600.0)
"""Delay between two attempts for one entity."""
REQUEST_BACKOFF = Backoff(first=0.5, longest=60.0)
"""Delay between two attempts for a whole request that Port did not answer or accept yet."""
MOST_RETRY_AFTER = 600.0
"""Maximum Retry-After that is honoured, in seconds."""
IDLE = 0.05
UNSURE = frozenset({PortFailureReason.UNANSWERED, PortFailureReason.SERVER})
"""Failures after which it is unknown whether the request was, or will be, carried out."""


class WriterClosingError(RetryableError):
    """The sink stops writing; its unsent entities are sent by the next one."""

    code = "writer_closing"

    def __init__(self) -> None:
        super().__init__("the sink is closing")


@dataclass(frozen=True)
class Sender:
    """The senders of one term."""

    client: PortClient
    limiter: RateLimiter
    fence: Fence
    sent_index: SentIndex
    dead_letters: DeadLetterWriter
    send_queue: SendQueue
    in_doubt: InDoubt
    metrics: SinkMetrics
    clock: Clock
    on_status: Callable[[PortError | None], None]
    result: SinkResult = field(default_factory=SinkResult)
    merge: bool = True
    create_missing: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the outbox has been given something."""
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when new requests must not be started."""

    async def send(self, slot: int) -> None:
        """Take batches and deliver them, until `closing`. A sender has one request in flight; `slot` is its number.

        Raises:
            NotLeaderError: another sink writes, or may write.

        """
        while not self.closing.is_set():
            taken = self.send_queue.take(self.now_ms())
            if taken is not None:
                with suppress(WriterClosingError):
                    await self._deliver(slot, *taken)
                continue
            # A batch may become due by mere waiting, so the event alone would not do.
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE):
                    await self.wake.wait()
            self.wake.clear()

    def now_ms(self) -> int:
        """Return the time in ms since the epoch."""
        return self.clock.now_ns() // 1_000_000

    async def _deliver(self, slot: int, blueprint: str, items: Sequence[QueuedEntity]) -> None:
        attempt = 0
        while True:
            try:
                headers, results = await self._request(slot, blueprint, items)
            except PortError as exc:
                self.metrics.requests.labels(exc.why.value).inc()
                if exc.why in UNSURE:
                    # It may be on its way still when its repetition has long landed, and land on something newer.
                    plan = self.sent_index.retire(slot)
                    if plan is not None:
                        self.in_doubt.add(plan, self.now_ms() + int(self.client.config.timeout * 1000))
                else:
                    self.sent_index.answered(slot)
                if not exc.retryable:
                    await self._rejected(slot, blueprint, items, exc)
                    return
                await self._pause(exc, attempt)
                attempt += 1
                items = self.send_queue.newest(items)
                continue
            self.limiter.observe(headers)
            self.metrics.paced(self.limiter.rate, self.limiter.remaining)
            self.on_status(None)
            await self._settle(blueprint, items, results)
            self.sent_index.answered(slot)
            return

    async def _request(
        self, slot: int, blueprint: str, items: Sequence[QueuedEntity]
    ) -> tuple[Mapping[str, str], list[api.Failed | None]]:
        await self.limiter.wait()
        await self.client.tokens.get()
        await self.fence.ensure()
        if self.closing.is_set():
            raise WriterClosingError
        await self.sent_index.plan(slot, items, self.now_ms() + int(self.client.tokens.longest * 1000))
        await self.fence.ensure()
        entities = [item.entity for item in items]
        return await api.upsert(self.client, blueprint, entities, merge=self.merge, create_missing=self.create_missing)

    async def _pause(self, exc: PortError, attempt: int) -> None:
        """Wait until the same request may be accepted."""
        headers = exc.headers if isinstance(exc, PortAnswerError) else {}
        if exc.why is PortFailureReason.THROTTLED:
            self.metrics.throttled.inc()
            seconds = self.limiter.throttled(headers, exc.retry_after, attempt)
            self.metrics.paced(self.limiter.rate, self.limiter.remaining)
            log.warning("throttled", seconds=round(seconds, 1), hint=exc.hint)
            return
        self.on_status(exc)
        seconds = REQUEST_BACKOFF.delay(attempt, at_least=min(exc.retry_after or 0.0, MOST_RETRY_AFTER))
        if attempt in (0, 5) or attempt % 20 == 0:
            log.warning("port_away", why=exc.message, hint=exc.hint, retry_in_s=round(seconds, 1))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.closing.wait()
                raise WriterClosingError

    async def _rejected(self, slot: int, blueprint: str, items: Sequence[QueuedEntity], exc: PortError) -> None:
        """Deal with a request that Port refuses as a whole."""
        now = self.now_ms()
        if exc.why is PortFailureReason.NOT_FOUND:
            log.warning("blueprint_missing", blueprint=blueprint, hint=exc.hint)
            for item in items:
                await self._again(item, f"{exc.message} (blueprint {blueprint})", now)
            return
        if len(items) > 1:
            # One entity makes Port refuse all of them: split the batch until it is alone.
            middle = len(items) // 2
            await self._deliver(slot, blueprint, items[:middle])
            await self._deliver(slot, blueprint, items[middle:])
            return
        await self._dead(items[0], exc.message, now)

    async def _settle(
        self, blueprint: str, items: Sequence[QueuedEntity], results: Sequence[api.Failed | None]
    ) -> None:
        """Note the written entities; the others are retried or given up."""
        written = [item for item, failed in zip(items, results, strict=True) if failed is None]
        if written:
            await self.sent_index.note(written)
            self.metrics.upserted.labels(blueprint).inc(len(written))
            self.result.written += len(written)
        now = self.now_ms()
        for item in written:
            if item.appended_ms is not None:
                self.metrics.row_to_port.observe(max(0, now - item.appended_ms) / 1000)
            self.in_doubt.forced.discard(item.entity.key)
            self.send_queue.ack(item, now)
        self.metrics.requests.labels("ok" if len(written) == len(items) else "partial").inc()
        for item, failed in zip(items, results, strict=True):
            if failed is None:
                continue
            if failed.missing or failed.retryable:
                if failed.missing:
                    self.metrics.missing.labels(blueprint).inc()
                await self._again(item, f"Port answered {failed.status}: {failed.message}", now)
            else:
                await self._dead(item, f"Port answered {failed.status}: {failed.message}", now)
        self.send_queue.wake((item.entity.key.identifier for item in written), now)

    async def _again(self, item: QueuedEntity, why: str, now_ms: int) -> None:
        """Try an entity again later, for a bounded number of times."""
        if item.attempts + 1 >= ATTEMPTS:
            await self._dead(item, f"given up after {ATTEMPTS} attempts: {why}", now_ms)
            return
        pause_ms = int(ENTITY_BACKOFF.delay(item.attempts) * 1000)
        self.send_queue.defer(item, now_ms + pause_ms, now_ms)

    async def _dead(self, item: QueuedEntity, why: str, now_ms: int) -> None:
        await self.dead_letters.refused(item, why)
        self.metrics.failed.labels(item.entity.key.blueprint).inc()
        self.result.refused += 1
        self.in_doubt.forced.discard(item.entity.key)
        self.send_queue.ack(item, now_ms)
