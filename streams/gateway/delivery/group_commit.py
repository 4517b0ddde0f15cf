"""The durability behind a 200: acks from all in-sync replicas of Kafka, or an fsynced row in the spool.

Group commit without timers: while one round of messages is in flight, new messages wait for the next round; otherwise a
round is sent at once. Each partition's share of a round is handled separately: messages for a partition that does not
answer are spooled immediately, messages that are not acknowledged in time are spooled then, and a late ack deletes
their rows. Messages may be reordered, which is harmless because events have ids.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence

import structlog

from tallystream.streams.gateway.delivery.batch import ProducerBatch, settled
from tallystream.streams.gateway.delivery.producer import Link
from tallystream.streams.gateway.errors import NotDurableError, ProducerLostError, SpoolWriteError
from tallystream.streams.gateway.message import Message, Place
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.spool.spool import RowId, Spool
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.service.clock import Clock
from tallystream.streams.service.log_throttle import LogThrottle

AT_ONCE = 400
"""Messages of a request in one round, and of a round that are sent before other requests get their turn: some
milliseconds."""
log = structlog.get_logger()


class _Round:
    """The batches of a round that are not settled yet."""

    __slots__ = ("_ended", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self._ended: asyncio.Future[None] | None = None

    def settled(self) -> None:
        """Count one batch out."""
        self.left -= 1
        if not self.left:
            self._end()

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    async def end(self, within: float) -> None:
        """Return when all batches are settled, or after so many seconds."""
        if not self.left:
            return
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        timer = loop.call_later(within, self._end)
        try:
            await self._ended
        finally:
            timer.cancel()


class _Share:
    """A round's messages for one partition, and a future for each request that waits for them."""

    __slots__ = ("_outcome", "_waiting", "current", "messages", "settled", "unacked")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.unacked = 0
        self.current: _Round | None = None
        """The round in which it is sent."""
        self.settled = False
        self._waiting: list[asyncio.Future[None]] = []
        self._outcome: BaseException | None = None

    async def durable(self) -> None:
        """Return once the messages are durable; raises NotDurableError when the client must send them again."""
        if not self.settled:
            # one future for each request, because a request may be cancelled and the others go on
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        if self._outcome is not None:
            raise self._outcome

    def told(self, batch: ProducerBatch) -> None:
        """Note that the outcome of a batch is known."""
        if batch.lost is None:
            self.unacked -= 1
            if not self.unacked:
                self.succeed()
        if self.current is not None:
            self.current.settled()

    def succeed(self) -> None:
        """Tell the waiting requests that the messages are durable."""
        self._settle(None)

    def fail(self, exc: BaseException) -> None:
        """Tell the waiting requests that the messages are not durable, so that the clients send them again."""
        self._settle(exc)

    def _settle(self, outcome: BaseException | None) -> None:
        if self.settled:
            return
        self.settled, self._outcome = True, outcome
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)


class Delivery:
    """Run `run()` as a task; every request awaits `deliver`."""

    def __init__(self, link: Link, spool: Spool, metrics: Metrics, clock: Clock) -> None:
        self._link = link
        self._spool = spool
        self._metrics = metrics
        self._clock = clock
        self._open: dict[Place, _Share] = {}
        self._idle: asyncio.Future[None] | None = None
        """What `run` waits for while there are no messages."""
        self._following: set[asyncio.Task[None]] = set()
        self._late: Counter[Place] = Counter()
        self._since = 0.0
        self._not_durable = LogThrottle(clock, "not_durable")

    def late(self, place: Place) -> bool:
        """Return whether spooled messages are still in flight to Kafka, so that their rows may yet be deleted."""
        return self._late[place] > 0

    @property
    def waiting(self) -> float:
        """Return for how many seconds the current round has been neither acknowledged nor spooled."""
        return self._clock.monotonic() - self._since if self._since else 0.0

    async def deliver(self, messages: Sequence[Message]) -> None:
        """Return once all messages are durable.

        Raises:
            NotDurableError: neither Kafka nor the spool accepted all of them, so the client must send them again.

        """
        if len(messages) > AT_ONCE:
            # a round after the other, because whoever comes meanwhile waits for a whole round
            for start in range(0, len(messages), AT_ONCE):
                await self.deliver(messages[start : start + AT_ONCE])
            return
        shares: dict[_Share, None] = {}
        for message in messages:
            place = self._link.place_of(message)
            share = self._open.get(place)
            if share is None:
                share = self._open[place] = _Share()
            share.messages.append(message)
            shares[share] = None
        if not shares:
            return
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        for share in shares:
            await share.durable()

    async def run(self) -> None:
        """Send rounds until cancelled. Cancel it only when no request is waiting."""
        try:
            while True:
                if not self._open:
                    self._idle = asyncio.get_running_loop().create_future()
                    await self._idle
                    self._idle = None
                current, self._open = self._open, {}
                self._since = self._clock.monotonic()
                away = [place for place in current if not self._link.takes(place)]
                if not away:
                    await self._to_kafka(current)
                else:
                    spooled = {place: current.pop(place) for place in away}
                    await asyncio.gather(self._to_kafka(current), self._to_spool(spooled))
                self._since = 0.0
        finally:
            await cancel(*self._following)

    async def _to_kafka(self, shares: dict[Place, _Share]) -> None:
        if not shares:
            return
        groups: dict[Place, list[Message]] = {}
        number = 0
        for place, share in shares.items():
            groups[place] = share.messages
            number += len(share.messages)
        batches: list[ProducerBatch] = []
        try:
            if number <= AT_ONCE:
                batches = self._link.send_grouped(groups)
            else:
                messages = [message for group in groups.values() for message in group]
                for start in range(0, len(messages), AT_ONCE):
                    if start:
                        await asyncio.sleep(0)
                    batches += self._link.send(messages[start : start + AT_ONCE])
        except ProducerLostError:
            # what has been sent already may arrive twice, which is harmless
            await self._to_spool(shares)
            return
        except Exception as exc:
            log.exception("round_failed")
            for share in shares.values():
                share.fail(SpoolWriteError(type(exc).__name__))
            return
        current = _Round(len(batches))
        for batch in batches:
            share = shares[batch.place]
            share.unacked += 1
            share.current = current
        for batch in batches:
            batch.tell(shares[batch.place].told)
        await current.end(within=self._link.timeout.seconds)
        late = [batch for batch in batches if not batch.acked]
        if late:
            self._link.missed(late)
            await self._to_spool({place: shares[place] for place in {batch.place for batch in late}}, late)

    async def _to_spool(self, shares: dict[Place, _Share], late: Sequence[ProducerBatch] = ()) -> None:
        """Store the shares, or only their late batches, in one transaction."""
        if not shares:
            return
        parcels: list[tuple[ProducerBatch | None, list[Message]]] = (
            [(batch, batch.messages) for batch in late]
            if late
            else [(None, share.messages) for share in shares.values()]
        )
        places = Counter(batch.place for batch in late)
        self._late += places
        try:
            ids = await self._spool.put([message for _, messages in parcels for message in messages])
        except Exception as exc:  # noqa: BLE001 - whatever it is, clients must be told
            self._late -= places
            self._refuse(shares, exc)
            return
        self._metrics.spooled.inc(len(ids))
        for share in shares.values():
            share.succeed()
        first = 0
        for batch, messages in parcels:
            if batch is not None:
                task = asyncio.create_task(self._follow(batch, ids[first : first + len(messages)]))
                self._following.add(task)
                task.add_done_callback(self._following.discard)
            first += len(messages)

    def _refuse(self, shares: dict[Place, _Share], exc: Exception) -> None:
        messages = sum(len(share.messages) for share in shares.values())
        if isinstance(exc, NotDurableError):
            self._metrics.refusals.labels(type(exc).__name__).inc()
            self._not_durable.warning(messages=messages, error=str(exc))
            outcome = exc
        else:
            log.error("round_failed", messages=messages, exc_info=exc)
            outcome = SpoolWriteError(type(exc).__name__)
        for share in shares.values():
            share.fail(outcome)

    async def _follow(self, batch: ProducerBatch, ids: list[RowId]) -> None:
        """Delete the rows of a batch that Kafka acknowledges after all."""
        try:
            await settled([batch])
            if batch.acked:
                with contextlib.suppress(SpoolWriteError):  # then they are sent once more
                    await self._spool.delete(ids)
        finally:
            self._late[batch.place] -= 1
