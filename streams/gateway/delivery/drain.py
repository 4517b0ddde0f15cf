"""Drains the spool into Kafka, each partition separately: oldest first, in small batches and few at a time, so that
live requests are not delayed and an unavailable partition does not block the others.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from tallystream.streams.gateway.delivery.batch import settled
from tallystream.streams.gateway.delivery.group_commit import Delivery
from tallystream.streams.gateway.delivery.producer import Link
from tallystream.streams.gateway.errors import ProducerLostError, SpoolWriteError
from tallystream.streams.gateway.message import Place
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.spool.spool import Lane, RowId, Spool, SpooledRow
from tallystream.streams.kafka.lifecycle import cancel

DRAIN_BYTES = 128 << 10
"""Maximum bytes sent at once to one partition."""
AT_ONCE = 2
"""Number of partitions drained at one time: they take about 10 ms of a broker's time, for which a live request may have
to wait."""
MAX_ROWS = 4096
RETRY = 1.0
log = structlog.get_logger()


class Drain:
    """Run `run()` as a task; call `wake()` whenever the link changes."""

    def __init__(self, spool: Spool, link: Link, delivery: Delivery, metrics: Metrics) -> None:
        self._spool = spool
        self._link = link
        self._delivery = delivery
        self._metrics = metrics
        self._changed = asyncio.Event()
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._lanes: dict[Lane, asyncio.Task[None]] = {}
        self._after: dict[Lane, int] = {}
        """Position after the last row that Kafka refused, if there is one."""
        self._limits: dict[Lane, int] = {}
        """Number of rows sent at once while a refused row is being searched for."""

    def wake(self) -> None:
        """Check again for work."""
        self._changed.set()

    async def run(self) -> None:
        """Drain whatever may be sent, until cancelled.

        Raises:
            Exception: the task of a lane has failed.

        """
        try:
            while True:
                await self._spool.filled.wait()
                self._changed.clear()
                for lane in self._spool.lanes():
                    if lane not in self._lanes and self._may_send(lane.place):
                        task = asyncio.create_task(self._drain(lane))
                        self._lanes[lane] = task
                        task.add_done_callback(lambda _: self._changed.set())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY):
                        await self._changed.wait()
                for lane, task in [(lane, task) for lane, task in self._lanes.items() if task.done()]:
                    del self._lanes[lane]
                    task.result()
        finally:
            await cancel(*self._lanes.values())

    def _may_send(self, place: Place) -> bool:
        """Rows whose first send is still in flight are not sent again, because their own ack deletes them."""
        if place.partition < 0:  # from version 0.1, for any partition of the topic
            return self._link.connected
        return self._link.reachable(place) and not self._delivery.late(place)

    async def _drain(self, lane: Lane) -> None:
        """Send a lane's rows until it is empty or its partition does not accept more."""
        undeleted: list[RowId] = []
        while True:
            limit = self._limits.get(lane, MAX_ROWS)
            try:
                if undeleted:
                    # On a full disk even deletions may fail; acknowledged rows must not be sent repeatedly
                    # meanwhile.
                    await self._forget(undeleted)
                    undeleted = []
                rows = await self._spool.read(lane, max_bytes=DRAIN_BYTES, limit=limit, after=self._after.get(lane, 0))
                # A round may have timed out while this read waited, so some of these rows may belong to it.
                if not rows or not self._may_send(lane.place):
                    return
                acked, rejected = await self._send(rows)
                undeleted = [row.id for row in rows if id(row.message) in acked]
                await self._forget(undeleted)
                undeleted = []
            except ProducerLostError:
                return
            except SpoolWriteError as exc:
                log.error("spool_not_drained", error=str(exc))  # noqa: TRY400
                await asyncio.sleep(RETRY)
                continue
            if rejected:
                self._sort_out(lane, rows, rejected)
            elif len(acked) < len(rows):
                return
            elif 2 * limit < MAX_ROWS:
                self._limits[lane] = 2 * limit
            else:
                self._limits.pop(lane, None)

    async def _send(self, rows: list[SpooledRow]) -> tuple[set[int], str]:
        """Send rows; return the `id()` of each message that was acknowledged, and Kafka's reason for refusing one."""
        async with self._turn:
            batches = self._link.send([row.message for row in rows])
            await settled(batches, within=self._link.timeout.seconds)
        late = [batch for batch in batches if not batch.settled]
        if late:
            self._link.missed(late)
            await settled(late)
        acked = {id(message) for batch in batches if batch.acked for message in batch.messages}
        return acked, next((batch.lost.rejected for batch in batches if batch.lost and batch.lost.rejected), "")

    async def _forget(self, acked: list[RowId]) -> None:
        await self._spool.delete(acked)
        self._metrics.drained.inc(len(acked))

    def _sort_out(self, lane: Lane, rows: list[SpooledRow], reason: str) -> None:
        """Find the message that Kafka refuses by sending fewer rows, and skip it: it stays in the spool."""
        if len(rows) > 1:
            self._limits[lane] = len(rows) // 2
            return
        self._after[lane] = rows[0].id.id
        self._metrics.rejected.inc()
        log.error(
            "message_rejected", reason=reason, row=rows[0].id.id, topic=lane.place.topic, spool=str(self._spool.path)
        )

    def retry_rejected(self) -> None:
        """Start again with the oldest messages, because Kafka may accept now what it refused before."""
        if self._after:
            self._after.clear()
            self._spool.filled.set()
            self._changed.set()
