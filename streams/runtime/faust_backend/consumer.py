"""Faust's consumer, used only for membership and assignment: positions come from the state, not from the group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import structlog
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from typing_extensions import override

from tallystream.streams.runtime.faust_backend.context import context_of
from tallystream.streams.runtime.faust_backend.light_records import lighten

log = structlog.get_logger()
FETCH_MAX_WAIT_MS = 40
"""Milliseconds for which a broker holds an answer that has less than FETCH_MIN_BYTES: what a record waits at most to be
fetched. Without it each of 500 messages a second had an answer, a wake of two threads and a group of its own, and these
took a third of the worker's CPU time."""
FETCH_MIN_BYTES = 64 << 10
COMMIT_TIMEOUT = 5.0

ACCEPTED = (0, 27)
"""Heartbeat and SyncGroup error codes with which the broker confirms our membership (27: it asks us to rejoin)."""

EXPELLED = (22, 25, 82)
"""Heartbeat error codes that end our membership: illegal generation, unknown member, fenced instance."""


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that owns aiokafka's consumer, so that heartbeats continue during a fold.

    Promises: the app's guard learns of every accepted heartbeat, by the time it was sent; a failed offset commit is
    only logged (Faust would crash the worker: `_commit` in faust/transport/drivers/aiokafka.py), since committed
    offsets only serve lag monitoring.

    Relies on `AIOKafkaConsumerThread._create_worker_consumer` and `_commit` there; in aiokafka on
    `AIOKafkaConsumer._fetch_max_wait_ms` and `_fetch_min_bytes` (consumer/consumer.py; Faust hard-codes 1500 ms and one
    byte, and with one fetch in flight a broker an idle partition's long poll stalls the busy ones), `_coordinator`, and
    `GroupCoordinator._send_req` (consumer/group_coordinator.py), through which heartbeats and SyncGroup go.
    """

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS  # noqa: SLF001 - named above
        consumer._fetch_min_bytes = FETCH_MIN_BYTES  # noqa: SLF001 - named above
        start: Callable[[], Awaitable[None]] = consumer.start

        async def started() -> None:
            await start()
            self._watch_heartbeats(consumer._coordinator)  # noqa: SLF001 - named above
            lighten(consumer)

        consumer.start = started
        return consumer

    def _watch_heartbeats(self, coordinator: Any) -> None:
        membership = context_of(self.app).membership
        send: Callable[[Any], Awaitable[Any]] = coordinator._send_req  # noqa: SLF001 - named above

        async def send_req(request: Any) -> Any:
            sent = membership.now()
            response = await send(request)
            kind = type(request).__name__
            code = getattr(response, "error_code", 0)
            if kind.startswith(("Heartbeat", "SyncGroup")) and code in ACCEPTED:
                membership.confirmed(sent)
            elif kind.startswith("Heartbeat") and code in EXPELLED:
                membership.ended()
            return response

        coordinator._send_req = send_req  # noqa: SLF001 - named above

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        mine = self.assignment()
        commit = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items() if tp in mine}
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT):
                await self._ensure_consumer().commit(commit)
        except Exception as exc:  # noqa: BLE001 - a rebalance, or no broker: the next commit says it again
            log.info("positions_not_committed", error=repr(exc))
            return False
        return True


class NoReadOffsets(dict[TP, int | None]):
    """Replaces Faust's map of last offsets read, and stays empty.

    Faust drops records below the last offset it read, even after a seek back (`_drain_messages` in
    faust/transport/consumer.py), so it would drop the records of a repair.
    """

    def __getitem__(self, tp: TP) -> None:
        return None

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        """Ignore it."""

    def update(self, *_args: Any, **_kwargs: Any) -> None:
        """Ignore them."""


class Consumer(driver.Consumer):
    """Faust's consumer with the state's positions instead of the group's offsets.

    Promises: partitions are read from where the state ends (`perform_seek`), whatever was committed; what is in memory
    is dropped before JoinGroup is sent (`on_partitions_revoked`), so we do not write to a partition that may have a new
    owner; the group's committed offsets are positions acknowledged in the changelog (`force_commit`).

    Relies on `Consumer._read_offset`, `perform_seek`, `force_commit`, `_commit` of faust/transport/consumer.py and on
    `_new_consumer_thread` and `on_partitions_revoked` being what the driver calls.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = NoReadOffsets()
        self._reported: dict[TP, int] = {}

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """First drop the in-memory state; then Faust flushes the producer before JoinGroup is sent."""
        context = context_of(self.app)
        context.rebalances += 1
        for engine in context.engines:
            engine.revoke_all()
        await super().on_partitions_revoked(revoked)

    async def perform_seek(self) -> None:
        """Seek to where the state ends."""
        self._reported.clear()
        wanted = {
            TP(*tp): offset for engine in context_of(self.app).engines for tp, offset in engine.expected().items()
        }
        if wanted:
            await self.seek_wait(wanted)

    @override
    async def force_commit(
        self,
        topics: Any = None,
        start_new_transaction: bool = True,
    ) -> bool:
        """Commit the positions that the changelog has acknowledged since the last commit."""
        applied = {
            TP(*tp): offset for engine in context_of(self.app).engines for tp, offset in engine.applied().items()
        }
        wanted = {tp: offset for tp, offset in applied.items() if self._reported.get(tp) != offset}
        if not wanted or not await self._commit(wanted):
            return False
        self._reported.update(wanted)
        return True

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Tell Faust's recovery that changelogs are empty (the tables recover themselves)."""
        return await self._asked(super().highwaters, partitions)

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Tell Faust's recovery that changelogs are empty."""
        return await self._asked(super().earliest_offsets, partitions)

    async def _asked(
        self, ask: Callable[..., Awaitable[Mapping[TP, int]]], partitions: Iterable[TP]
    ) -> Mapping[TP, int]:
        logs = {engine.changelog for engine in context_of(self.app).engines}
        rest = [tp for tp in partitions if tp.topic not in logs]
        answers = dict(await ask(*rest)) if rest else {}
        return {**{tp: 0 for tp in partitions if tp.topic in logs}, **answers}

    async def create_topic(self, topic: str, partitions: int, replication: int, **_kwargs: Any) -> None:
        """Do nothing: topics are created, with the settings they need, by `streams.kafka.topics.ensure`."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust's livelock detector relies on its own acks, which are not used; see `App.healthy`."""
