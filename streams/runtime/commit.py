"""Group commit: writes everything folded since the last group together, in an order that cannot lose anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from aiokafka.structs import TopicPartition

from tallystream.streams.runtime.changelog import (
    HIDDEN,
    POSITION,
    SOURCE_ID,
    TAIL,
    WATERMARK,
    Row,
    hidden_keys,
    tail_of,
)
from tallystream.streams.runtime.expiry import Expiry
from tallystream.streams.runtime.fold import Fold
from tallystream.streams.runtime.host import Host
from tallystream.streams.runtime.late_writes import LateWrites
from tallystream.streams.runtime.partition import Partition
from tallystream.streams.runtime.progress import Counters, FoldActivity
from tallystream.streams.runtime.store import RowStore

BACKLOG = 250
"""Records of a partition that wait to be folded, from which on a group waits for more of them: who is that far behind
gains more from fewer rows than from earlier ones. Without a backlog a group never waits."""
BACKLOG_GROUP = 8_000
"""Records for which a group waits in a backlog."""
BACKLOG_SECONDS = 2.0
"""Seconds that it waits for them at most."""


class GroupCommit:
    """Commits the groups of the partitions in `owned` to the topic `changelog` and the store."""

    def __init__(
        self,
        fold: Fold,
        host: Host,
        store: RowStore,
        owned: Mapping[int, Partition],
        source: str,
        changelog: str,
        *,
        source_id: bytes,
        expiry: Expiry,
        late_writes: LateWrites,
        counters: Counters,
        activity: FoldActivity,
    ) -> None:
        self._fold = fold
        self._host = host
        self._store = store
        self._owned = owned
        self._source = source
        self._changelog = changelog
        self._source_id = source_id
        self._expiry = expiry
        self._late_writes = late_writes
        self._counters = counters
        self._activity = activity
        self.draining = False
        """Whether folding has ended, so that no group waits for more records."""

    async def run(self, partition: Partition) -> None:
        """Commit one group after another for as long as the partition is ours; any failure ends the process."""
        try:
            while True:
                await partition.wake.wait()
                if self._fold.linger:
                    await asyncio.sleep(self._fold.linger)
                await self._gather(partition)
                partition.wake.clear()
                if partition.waiting or partition.expired:
                    await self.commit(partition)
        except Exception as exc:  # noqa: BLE001 - whatever it is, going on could lose records
            self._host.fail_fast(exc)

    async def _gather(self, partition: Partition) -> None:
        """Wait until a partition with a backlog has folded enough for a large group.

        A session-hour that many records of the group change is written once, and in a backlog most are.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BACKLOG_SECONDS):
                while self._has_backlog(partition):
                    partition.wake.clear()
                    await partition.wake.wait()

    def _has_backlog(self, partition: Partition) -> bool:
        """Tell whether many more records are about to be folded, and may be before the next acknowledgement."""
        enough = min(BACKLOG_GROUP, self._fold.max_unacked)
        if self.draining or not partition.waiting or partition.expected - partition.applied.offset >= enough:
            return False
        end = self._host.source_end(TopicPartition(self._source, partition.number))
        return end is not None and end - partition.expected >= BACKLOG

    async def commit(self, partition: Partition) -> None:
        """Commit what is dirty.

        Promise: all rows of the group are serialised from one snapshot before the first is sent, so the topics hold a
        consistent snapshot. Public rows are acknowledged before the changelog is written, and the changelog
        before the store: what the changelog holds has been published, and what the store holds is in the changelog.
        Each changelog batch, unless it is the only one, opens with the position before the group; the last one ends
        with the watermark, when it rises or a replaced worker has written a lower one, and the position after it, both
        in that one batch: of a torn group only rows remain, which the position read back folds over.

        Raises:
            UnfitError: a row is too large for a record batch; nothing has been sent.

        """
        host, p = self._host, partition.number
        states, partition.dirty, partition.waiting = partition.dirty, {}, False
        before, after = partition.applied, partition.folded
        expired = [key for key in partition.expired if key not in states]
        partition.expired = [key for key in partition.expired if key in states]

        group = self._fold.group(partition, states, partition.version(after.offset - 1))
        public = [
            host.pack(out.topic, out.partition, out.rows, headers=out.headers) for out in group.public if out.rows
        ]
        # now, because everything folded so far was folded under the old one
        watermark = self._expiry.raise_watermark(partition, after)
        rows: list[Row] = [*group.rows, *((key, None) for key in expired)]
        closing: list[Row] = [(POSITION, after.encode())]
        hidden = self._store.read(p, HIDDEN)
        if watermark is not None:
            closing.insert(0, (WATERMARK, watermark.encode()))
        elif hidden is not None and WATERMARK in hidden_keys(hidden):
            closing.insert(0, (WATERMARK, self._store.read(p, WATERMARK)))
        if self._source_id and self._store.read(p, SOURCE_ID) != self._source_id:
            closing.insert(0, (SOURCE_ID, self._source_id))
        changelog = host.pack(self._changelog, p, rows, opening=(POSITION, before.encode()), closing=closing)

        began = host.monotonic()
        await host.write(public)
        published = host.monotonic()
        last = await host.write([changelog], expect=self._store.changelog_offset(p) + 1)
        acked = host.monotonic()
        if self._owned.get(p) is not partition:
            return  # revoked meanwhile; the next owner reads what was acknowledged

        tail = (TAIL, tail_of(last, *closing[-1]))
        written = [*rows, *group.derived, *closing, tail]
        if hidden is not None:  # the first group after recovery contains all hidden keys
            written.append((HIDDEN, None))
        self._store.write(p, written, last)
        for out in public:
            if out.topic in self._fold.owned_topics:
                self._late_writes.landed(TopicPartition(out.topic, out.partition), out.landed)
        partition.applied = after
        partition.unacked_since = host.monotonic() if partition.expected > after.offset else None
        counters = self._counters
        counters.groups += 1
        counters.public_seconds += published - began
        counters.changelog_seconds += acked - published
        counters.rows += len(rows)
        counters.expired += len(expired)
        self._activity.moved()
        self._fold.acknowledged(partition)
        self._go_on(partition, expired)
        if watermark is not None:
            partition.tombstone = watermark.value
            self._expiry.start(partition)

    def _go_on(self, partition: Partition, expired: list[bytes]) -> None:
        """Forget removed keys and wake the tasks that waited for the group."""
        for key in expired:
            partition.cache.pop(key, None)
        if len(partition.cache) > self._fold.max_cache:
            partition.cache = dict(partition.dirty)
        if partition.expected - partition.applied.offset < self._fold.max_unacked:
            partition.capacity.set()
        if partition.expired:
            partition.wake.set()
        else:
            partition.swept.set()
