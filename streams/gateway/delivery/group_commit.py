"""The promise behind a 200: Kafka's acks from all replicas, or an fsynced spool row.

Group commit without timers. While one round of messages is on its way everything that arrives waits in the next one;
with nothing on its way a round leaves at once. Kafka has `ack_timeout` for a round. What it has not acknowledged by
then goes to the spool, and so does everything after it, at once, until Kafka acknowledges something again; a late ack
of a spooled round deletes its rows. Order is not promised: event ids make it harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from tallystream.streams.gateway.delivery.producer import Batch, Link
from tallystream.streams.gateway.errors import NotDurableError, ProducerLostError, SpoolWriteError
from tallystream.streams.gateway.message import Message
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.spool.spool import Spool
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.service.clock import Clock
from tallystream.streams.service.log_throttle import LogThrottle

log = structlog.get_logger()


class _Round:
    """Messages that share their fate, and the one future all their requests wait for."""

    __slots__ = ("durable", "messages")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Delivery:
    """Run `run()` as a task; every request awaits `deliver`."""

    def __init__(self, link: Link, spool: Spool, metrics: Metrics, clock: Clock, *, ack_timeout: float) -> None:
        self._link = link
        self._spool = spool
        self._metrics = metrics
        self._clock = clock
        self._ack_timeout = ack_timeout
        self._open = _Round()
        self._wake = asyncio.Event()
        self._late: set[asyncio.Task[None]] = set()
        self._since = 0.0
        self._not_durable = LogThrottle(clock, "not_durable")

    @property
    def late(self) -> bool:
        """Return whether spooled messages are still on their way to Kafka too: their rows may yet be deleted."""
        return bool(self._late)

    @property
    def waiting(self) -> float:
        """Return how many seconds the round on its way has been neither acknowledged nor spooled."""
        return self._clock.monotonic() - self._since if self._since else 0.0

    async def deliver(self, messages: Sequence[Message]) -> None:
        """Return once all messages are durable.

        Raises:
            NotDurableError: neither Kafka nor the spool took them: the client must be told to send them again.

        """
        if not messages:
            return
        current = self._open
        current.messages += messages
        self._wake.set()
        await asyncio.shield(current.durable)

    async def run(self) -> None:
        """Send rounds until cancelled. Cancel it only when no request is waiting."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                current, self._open = self._open, _Round()
                if not current.messages:
                    continue
                self._since = self._clock.monotonic()
                await self._settle(current)
                self._since = 0.0
        finally:
            await cancel(*self._late)

    async def _settle(self, current: _Round) -> None:
        try:
            if self._link.live:
                await self._to_kafka(current.messages)
            else:
                await self._to_spool(current.messages)
        except NotDurableError as exc:
            self._metrics.refusals.labels(type(exc).__name__).inc()
            self._not_durable.warning(messages=len(current.messages), error=str(exc))
            outcome: BaseException | None = exc
        except Exception as exc:
            log.exception("round_failed", messages=len(current.messages))
            outcome = SpoolWriteError(type(exc).__name__)
        else:
            outcome = None
        if outcome is None:
            current.durable.set_result(None)
        else:
            current.durable.set_exception(outcome)
            current.durable.exception()

    async def _to_kafka(self, messages: list[Message]) -> None:
        try:
            batches = self._link.send(messages)
        except ProducerLostError:
            await self._to_spool(messages)
            return
        await asyncio.wait([batch.acked for batch in batches], timeout=self._ack_timeout)
        late = [batch for batch in batches if not _acked(batch)]
        if late:
            self._link.missed()
            await self._to_spool([message for batch in late for message in batch.messages], late)

    async def _to_spool(self, messages: list[Message], late: list[Batch] | None = None) -> None:
        ids = await self._spool.put(messages)
        self._metrics.spooled.inc(len(ids))
        if late:
            task = asyncio.create_task(self._follow(late, ids))
            self._late.add(task)
            task.add_done_callback(self._late.discard)

    async def _follow(self, late: list[Batch], ids: list[int]) -> None:
        """Delete the rows of batches that Kafka acknowledges after all."""
        await asyncio.wait([batch.acked for batch in late])
        acked = []
        first = 0
        for batch in late:
            if _acked(batch):
                acked += ids[first : first + len(batch.messages)]
            first += len(batch.messages)
        with contextlib.suppress(SpoolWriteError):  # they are sent once more then
            await self._spool.delete(acked)


def _acked(batch: Batch) -> bool:
    return batch.acked.done() and batch.acked.exception() is None
