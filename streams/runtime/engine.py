"""The exact engine: folds a topic into a state that includes its own positions; independent of the host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime.changelog import WATERMARK, Watermark, reserved
from tallystream.streams.runtime.changelog_copy import ChangelogCopy
from tallystream.streams.runtime.commit import GroupCommit
from tallystream.streams.runtime.expiry import Expiry
from tallystream.streams.runtime.fold import Fold, InputRecord
from tallystream.streams.runtime.gap_repair import GapRepair
from tallystream.streams.runtime.host import Host
from tallystream.streams.runtime.late_writes import LateWrites
from tallystream.streams.runtime.partition import Partition
from tallystream.streams.runtime.progress import Counters, FoldActivity, PartitionProgress, Progress
from tallystream.streams.runtime.recovery import RecoveredState, Recovery
from tallystream.streams.runtime.source_check import check_record
from tallystream.streams.runtime.store import RowStore

log = logging.getLogger(__name__)


def look_at(task: asyncio.Task[None]) -> None:
    """Retrieve a task's exception, which has already ended the process, except in the memory host."""
    if not task.cancelled():
        task.exception()


class Engine:
    """Folds `source` into rows by key, as `fold` says, for the partitions that the host assigns.

    Promise: each record of the source changes each row exactly once, whatever ends, pauses or joins. It holds because a
    record is folded only at the offset where the state ends (`accept`), the state's rows and that offset are one group
    in the changelog (`commit`), and rows carry the version (offset) they were last changed at, so that the rows of a
    group that was folded twice or written incompletely are skipped one by one. The source must be dense: no compaction,
    no transactions.

    All topics are created beforehand, co-partitioned. The host calls `revoke_all` before another worker may own our
    partitions, `assign` and then `recover` for assigned partitions, and `accept` with the records it reads.

    `topic_ids` are Kafka's ids of source and changelog, given if the host has verified that the store was built from
    these topics: then missing records are reported as lost instead of ending the process. With `accept_loss` this also
    applies when the identity is unknown, and when retention deleted records before they were counted.
    """

    def __init__(
        self,
        fold: Fold,
        host: Host,
        store: RowStore,
        *,
        source: str,
        changelog: str,
        topic_ids: Mapping[str, str] | None = None,
        accept_loss: bool = False,
    ) -> None:
        self.fold = fold
        self.host = host
        self.store = store
        self.source = source
        self.changelog = changelog
        self.topic_ids = topic_ids or {}
        self.counters = Counters()
        self.activity = FoldActivity(host.monotonic)
        copy = ChangelogCopy(fold, host, store, changelog, self.counters, self.activity, self.topic_ids)
        self._recovery = Recovery(copy, source, accept_loss)
        self._owned: dict[int, Partition] = {}
        self._assigned: frozenset[int] = frozenset()
        self.assignments = 0
        """Number of calls of `assign`: what began under an earlier one must not write to the store."""
        self._recovering = asyncio.Lock()
        self._closing = False
        self.late_writes = LateWrites(fold, host, self._owned, self.counters)
        self.gap_repair = GapRepair(host, self._owned, source, self.counters)
        self.expiry = Expiry(fold, host, store)
        self._groups = GroupCommit(
            fold,
            host,
            store,
            self._owned,
            source,
            changelog,
            source_id=self.topic_ids.get(source, "").encode(),
            expiry=self.expiry,
            late_writes=self.late_writes,
            counters=self.counters,
            activity=self.activity,
        )

    @property
    def name(self) -> str:
        """Return the table's name."""
        return self.fold.name

    def partition(self, p: int) -> Partition | None:
        """Return the partition while it is owned and recovered."""
        return self._owned.get(p)

    def rows(self, p: int) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over a partition's rows in the store, except reserved and closed ones."""
        raw = self.store.read(p, WATERMARK)
        watermark = None if raw is None else Watermark.decode(raw).value
        for key, value in self.store.items(p):
            if not reserved(key) and not (watermark is not None and self.fold.is_closed(key, watermark)):
                yield key, value

    # -- folding

    async def accept(self, p: int, records: Sequence[InputRecord]) -> None:
        """Fold the records if they continue where the state ends, whatever the group generation in which they were
        read.

        Raises:
            UnfitError: the source is not dense, or is not the topic that was counted.

        """
        partition = self._owned.get(p)
        if partition is None or self._closing:
            return  # not ours, or not recovered yet; then it will be sought
        if not partition.capacity.is_set():
            await partition.capacity.wait()
            if self._owned.get(p) is not partition or self._closing:
                return
        first, end = records[0].offset, records[-1].offset + 1
        if end - first != len(records):
            raise UnfitError(
                f"{self.source}-{p}: offsets {first} to {end - 1} hold {len(records)} records",
                "a source must be neither compacted nor written in transactions",
            )
        if first < partition.expected <= end:
            counted = records[partition.expected - 1 - first]
            check_record(TopicPartition(self.source, p), partition.folded, counted.offset, counted.timestamp)
        if end <= partition.expected:
            self.counters.skipped += len(records)
            return
        if first > partition.expected:
            self.counters.gaps += 1
            self.gap_repair.seek_back(partition, f"got {first} to {end - 1}")
            return
        if first < partition.expected:
            self.counters.skipped += partition.expected - first
            records = records[partition.expected - first :]
        self.fold.fold(partition, records)  # synchronous: no cancellation can leave it half done
        self.counters.folded += len(records)
        partition.expected, partition.newest_ms = end, records[-1].timestamp
        moved = self.activity.moved()
        if partition.unacked_since is None:
            partition.unacked_since = moved
        if end - partition.applied.offset >= self.fold.max_unacked:
            partition.capacity.clear()
        partition.flush()

    async def commit(self, p: int) -> None:
        """Commit a group of an owned partition now; normally groups are committed automatically, soon after a fold."""
        await self._groups.commit(self._owned[p])

    async def watch(self) -> None:
        """Periodic work, once a second: seek back where fetching has stalled although the source has more records."""
        if not self.progress().waiting:
            self.activity.moved()
        await self.gap_repair.watch()
        for partition in list(self._owned.values()):
            rows = self.fold.nudges(partition)
            if rows and not self._closing:
                await self.host.write([self.host.pack(self.source, partition.number, rows)])

    # -- positions and progress

    def expected(self) -> dict[TopicPartition, int]:
        """Return the next source offset to fold, by partition."""
        return {TopicPartition(self.source, p): one.expected for p, one in self._owned.items()}

    def applied(self) -> dict[TopicPartition, int]:
        """Return, by partition, the position that the changelog has acknowledged and the fold has finished."""
        return {TopicPartition(self.source, p): self.fold.finished(one) for p, one in self._owned.items()}

    def progress(self) -> Progress:
        """Return the table's current progress."""
        now = self.host.monotonic()
        partitions = {
            p: PartitionProgress(
                one.expected,
                one.applied.offset,
                self.host.source_end(TopicPartition(self.source, p)),
                0.0 if one.unacked_since is None else now - one.unacked_since,
            )
            for p, one in self._owned.items()
        }
        return Progress(partitions, len(self._assigned - partitions.keys()), self.activity.idle_for())

    async def drain(self, seconds: float) -> bool:
        """Stop folding and wait until everything folded is acknowledged; return whether that succeeded in time."""
        self._closing = self._groups.draining = True
        for partition in self._owned.values():
            partition.wake.set()
        deadline = self.host.monotonic() + seconds
        while any(one.waiting or one.applied.offset < one.expected for one in self._owned.values()):
            if self.host.monotonic() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    # -- ownership

    @property
    def assigned(self) -> frozenset[int]:
        """Return the partitions that the host has assigned, recovered or not."""
        return self._assigned

    def assign(self, partitions: set[int]) -> None:
        """Note the assigned partitions; they are folded only after `recover` has read their changelogs."""
        self._assigned = frozenset(partitions)
        self.assignments += 1
        self.activity.moved()

    async def recover(self, partitions: Sequence[int], current: Callable[[], bool]) -> None:
        """Recover these partitions and start folding them, unless `current` reports a newer assignment.

        Any error ends the process: a worker that cannot read what was counted must not count.
        """
        try:
            async with self._recovering:
                await self._recovery.run(partitions, current, self._install, self.late_writes.taken)
        except (KafkaError, TimeoutError) as exc:
            self.host.fail_fast(f"recovering {self.changelog}: {exc!r}")
        except Exception as exc:  # noqa: BLE001 - a host may log it and continue
            self.host.fail_fast(exc)

    def _install(self, recovered: RecoveredState) -> None:
        """Start to fold a recovered partition."""
        p, fold = recovered.number, self.fold
        self.revoke(p)
        partition = Partition(p, self.store, recovered.position, recovered.watermark)
        fold.recovered(partition)
        self._owned[p] = partition
        if (loss := recovered.loss) is not None:
            log.error("%s-%d: %s; continuing at %d", self.source, p, loss, recovered.position.offset)
            self.counters.lost_records += loss.last - loss.first + 1
            fold.records_lost(partition, loss)
            partition.flush()
        closed = partition.watermark
        hidden = {
            key
            for key in recovered.hidden
            if not reserved(key)
            and partition.stored(key) is not None
            and not (closed is not None and fold.is_closed(key, closed))
        }
        if hidden:
            fold.rewrite(partition, self.changelog, hidden)
        if recovered.hidden:
            partition.flush()  # also for a watermark, which the commit itself writes again
        self.begin(partition)
        if partition.watermark is not None:
            self.expiry.start(partition)
        self.activity.moved()

    def begin(self, partition: Partition) -> None:
        """Start to commit the partition's groups, each soon after something was folded."""
        partition.task = asyncio.ensure_future(self._groups.run(partition))
        partition.task.add_done_callback(look_at)

    def revoke(self, p: int) -> None:
        """Drop a partition's in-memory state. Records that are not acknowledged are folded again by the next owner."""
        partition = self._owned.pop(p, None)
        if partition is not None:
            partition.release()
            self.late_writes.lost(p)
            self.fold.lost(p)

    def revoke_all(self) -> None:
        """Drop the in-memory state of all partitions."""
        for p in list(self._owned):
            self.revoke(p)
