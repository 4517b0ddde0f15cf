"""Records when each connection last sent data: absolute counts on the topic `activity`, at most one row in `EVERY`
seconds for each connection and signal, whatever the traffic.

Counts are also saved in the spool file, so that they continue after a restart; a crash loses at most the last second of
them.
"""

from __future__ import annotations

import asyncio
from typing import get_args

import structlog

from tallystream.schemas import keys
from tallystream.schemas.connections import Activity, Signal
from tallystream.streams.gateway.delivery.batch import settled
from tallystream.streams.gateway.delivery.producer import Link
from tallystream.streams.gateway.errors import ProducerLostError, SpoolWriteError
from tallystream.streams.gateway.message import ACTIVITY_SCHEMA, Message
from tallystream.streams.gateway.spool.file import ActivityRow
from tallystream.streams.gateway.spool.spool import Spool
from tallystream.streams.service.clock import Clock, utc

SAVE_EVERY = 1.0
EVERY = 10.0
"""Seconds between two rows of a connection. Its first row is published within `SAVE_EVERY`."""
_SIGNALS: dict[str, Signal] = {signal: signal for signal in get_args(Signal)}
log = structlog.get_logger()


class ActivityLog:
    """`note` every accepted request; run `run()` as a task; `flush` once more at the end."""

    def __init__(self, topic: str, link: Link, spool: Spool, clock: Clock) -> None:
        self._topic = topic
        self._link = link
        self._spool = spool
        self._clock = clock
        self._gateway = ""
        self._rows: dict[tuple[str, Signal], list[int]] = {}
        self._unsaved: set[tuple[str, Signal]] = set()
        self._unpublished: set[tuple[str, Signal]] = set()
        self._not_before: dict[tuple[str, Signal], float] = {}

    async def load(self, gateway: str) -> None:
        """Continue with the counts of the spool's last owner. `gateway` names this gateway in the topic's keys."""
        self._gateway = gateway
        for row in await self._spool.load_activity():
            signal = _SIGNALS.get(row.signal)
            if signal is None:
                continue
            key = (row.connection_id, signal)
            self._rows[key] = [row.last_synced_ns, row.requests, row.records]
            self._unpublished.add(key)

    def forget(self, gateway: str) -> None:
        """Count from 0 under another name, because the counts so far belong to another cluster."""
        self._gateway = gateway
        self._rows = {key: row for key, row in self._rows.items() if key in self._unsaved}
        self._unpublished &= set(self._rows)

    def note(self, connection_id: str, signal: Signal, records: int) -> None:
        """Count an accepted request."""
        key = (connection_id, signal)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = [0, 0, 0]
        row[0] = self._clock.now_ns()
        row[1] += 1
        row[2] += records
        self._unsaved.add(key)

    async def run(self) -> None:
        """Save about once a second, and publish what is due, until cancelled."""
        while True:
            await asyncio.sleep(SAVE_EVERY)
            await self.flush(due_only=True)

    async def flush(self, within: float = 10.0, *, due_only: bool = False) -> None:
        """Save what changed, then publish it if Kafka answers; whatever Kafka does not accept is published next time.

        `due_only` skips counts that were published less than `EVERY` seconds ago.
        """
        unsaved, self._unsaved = self._unsaved, set()
        self._unpublished |= unsaved
        if unsaved:
            try:
                await self._spool.save_activity([ActivityRow(*key, *self._rows[key]) for key in sorted(unsaved)])
            except SpoolWriteError as exc:
                log.warning("activity_not_saved", error=str(exc))
        if not self._unpublished or not self._link.live:
            return
        now = self._clock.monotonic()
        due = [key for key in self._unpublished if not due_only or now >= self._not_before.get(key, 0.0)]
        messages = {key: self._message(key) for key in sorted(due)}
        publishing = {key for key, message in messages.items() if self._link.takes(self._link.place_of(message))}
        if not publishing:
            return
        self._unpublished -= publishing
        self._not_before.update(dict.fromkeys(publishing, now + EVERY))
        try:
            batches = self._link.send([messages[key] for key in sorted(publishing)])
            await settled(batches, within)
            if not all(batch.acked for batch in batches):
                self._unpublished |= publishing
        except ProducerLostError:
            self._unpublished |= publishing

    def _message(self, key: tuple[str, Signal]) -> Message:
        connection_id, signal = key
        at, requests, records = self._rows[key]
        value = Activity(
            connection_id=connection_id,
            signal=signal,
            gateway=self._gateway,
            last_synced_at=utc(at),
            requests=requests,
            records=records,
        )
        name = keys.join(connection_id, signal, self._gateway)
        return Message(self._topic, name, value.model_dump_json().encode(), ACTIVITY_SCHEMA)
