"""Emptying the spool into Kafka: oldest first, one modest batch at a time, so that live requests are not held up."""

from __future__ import annotations

import asyncio

import structlog

from tallystream.streams.gateway.delivery.group_commit import Delivery
from tallystream.streams.gateway.delivery.producer import Link
from tallystream.streams.gateway.errors import ProducerLostError, SpoolWriteError
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.spool.file import Row
from tallystream.streams.gateway.spool.spool import Spool

DRAIN_BYTES = 256 << 10
"""At once: about 10 ms of a broker's time, which is what a live request may have to wait for."""
RETRY = 1.0
log = structlog.get_logger()


class Drain:
    """Run `run()` as a task; call `wake()` whenever the link changes."""

    def __init__(self, spool: Spool, link: Link, delivery: Delivery, metrics: Metrics) -> None:
        self._spool = spool
        self._link = link
        self._delivery = delivery
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._undeleted: list[int] = []
        self._after = 0
        self._alone_until = 0

    def wake(self) -> None:
        """Look again whether there is work."""
        self._wake.set()

    async def run(self) -> None:
        """Drain whenever Kafka answers, until cancelled."""
        while True:
            await self._spool.filled.wait()
            if not self._link.connected or self._delivery.late:
                # Rows whose first sending is still open are not sent again: their own ack deletes them.
                self._wake.clear()
                await self._pause()
                continue
            try:
                await self._step()
            except ProducerLostError:
                self._wake.clear()
            except SpoolWriteError as exc:
                log.error("spool_not_drained", error=str(exc))  # noqa: TRY400
                await asyncio.sleep(RETRY)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(RETRY):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _step(self) -> None:
        if self._undeleted:
            # A full disk can refuse even deletions: what Kafka has must not be sent again and again meanwhile.
            await self._forget(self._undeleted)
        alone = self._after < self._alone_until
        rows = await self._spool.read(max_bytes=1 if alone else DRAIN_BYTES, after=self._after)
        if not rows:
            self._link.presume_live()
            return
        if self._delivery.late:
            # A round has missed its time while this read waited for the spool: some of these rows may be its own.
            return
        ids = {id(row.message): row.id for row in rows}
        batches = self._link.send([row.message for row in rows])
        await asyncio.wait([batch.acked for batch in batches])
        lost = [exc for batch in batches if isinstance(exc := batch.acked.exception(), ProducerLostError)]
        acked = [batch for batch in batches if batch.acked.exception() is None]
        await self._forget([ids[id(message)] for batch in acked for message in batch.messages])
        if rejected := next((exc.rejected for exc in lost if exc.rejected), ""):
            self._sort_out(rows, rejected)
        if lost:
            raise ProducerLostError

    async def _forget(self, acked: list[int]) -> None:
        self._undeleted = acked
        await self._spool.delete(acked)
        self._undeleted = []
        self._metrics.drained.inc(len(acked))

    def _sort_out(self, rows: list[Row], reason: str) -> None:
        """Find the message that Kafka refuses by sending each alone, and step over it: it stays in the spool."""
        if len(rows) > 1:
            self._alone_until = rows[-1].id
            return
        self._after = rows[0].id
        self._metrics.rejected.inc()
        log.error(
            "message_rejected", reason=reason, row=rows[0].id, topic=rows[0].message.topic, spool=str(self._spool.path)
        )

    def retry_rejected(self) -> None:
        """Go back to the oldest message: what Kafka refused before, it may take now."""
        if self._after:
            self._after = 0
            self._spool.filled.set()
