"""The exact table: a fold over a topic whose state owns its positions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.types import TP
from mode import Service

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime.changelog import CLOSED, Closed, PublicRows, Version, reserved
from tallystream.streams.runtime.commit import commit_groups
from tallystream.streams.runtime.faust_backend.batches import BatchSchema, Record
from tallystream.streams.runtime.faust_backend.stores import Rows
from tallystream.streams.runtime.gap_repair import Repair
from tallystream.streams.runtime.late_writes import Overtaken
from tallystream.streams.runtime.partition import Part
from tallystream.streams.runtime.progress import Counters, PartProgress, Progress
from tallystream.streams.runtime.recovery import Recovery
from tallystream.streams.runtime.source_check import check_record

if TYPE_CHECKING:
    from tallystream.streams.runtime.faust_backend.app import App

ROCKSDB: Mapping[str, int] = {
    "block_cache_size": 32 << 20,
    "write_buffer_size": 16 << 20,
    "max_write_buffer_number": 2,
    "target_file_size_base": 32 << 20,
}
"""Bounds of one partition's database; Faust's defaults (2 GiB of cache each) are meant for one a machine."""


class FoldTable(faust.Table[bytes, bytes]):
    """Folds `source` into rows by key; a subclass says how, with the hooks below.

    Promise: each record of the source changes each row exactly once, whatever ends, pauses or joins. It holds because
    a record is folded only at the offset where the state ends (`accept`), the state's rows and that offset are one
    group in the changelog (`commit`), and rows carry the version (offset) they were last changed at, so that a group
    folded twice or torn is skipped row by row. The source must be dense: no compaction, no transactions.

    Keys are bytes and do not start with a zero byte. The changelog topic is Faust's `{app id}-{name}-changelog`; it and
    every topic are created beforehand, co-partitioned.

    Relies on Faust calling `on_recovery_completed`, `on_rebalance` and `on_stop` of a table (tables/recovery.py,
    tables/manager.py) and on `Collection.data` being the store.
    """

    linger: float = 0.0
    """Seconds a group waits for more: trades latency for fewer rows."""
    max_unacked: int = 20_000
    """Records folded and not acknowledged, a partition; then folding waits."""
    max_cache: int = 50_000
    """Decoded states kept, a partition."""
    owned_topics: Sequence[str] = ()
    """Topics for whose partitions nobody writes but the owner of the same partition of the source: late rows of workers
    that were replaced are found there, see `newest`."""
    derived_topics: Sequence[str] = ()
    """Those of them whose rows are all written again when a partition has been recovered."""

    # -- what a subclass gives

    def load(self, raw: bytes) -> Any:
        """Return the state a row holds."""
        raise NotImplementedError

    def dump(self, state: Any) -> bytes:
        """Return the row of a state; `load` of it is equal."""
        raise NotImplementedError

    def version(self, raw: bytes) -> int:
        """Return the source offset a row was last changed at; cheap, it is asked for each recovered row."""
        raise NotImplementedError

    def fold(self, p: int, part: Part, records: Sequence[Record]) -> None:
        """Fold records into states, synchronously; `self.store.read(p, key)` has what is neither cached nor dirty.

        A record whose offset is not above a state's version has been counted in it: skip it. A key that
        `part.closed` closes must not be touched: refuse the record, or pass over it when its offset is below
        `part.settled`. Put each changed state into `part.dirty` (and `part.cache`).
        """
        raise NotImplementedError

    def public(
        self,
        p: int,  # noqa: ARG002 - for the subclass
        states: Mapping[bytes, Any],  # noqa: ARG002
        version: int,  # noqa: ARG002
    ) -> Sequence[PublicRows]:
        """Return the rows of this group for other topics: of `states`, derived ones, dead letters since the last group.

        Called once a group, synchronously; `version` is the offset of the newest record in it, `part.closed` the marker
        all of it was folded under. Everything returned is acknowledged before the changelog is written, and may be sent
        again (with the same or a higher version).
        """
        return ()

    def newest(self, p: int, topic: str, key: bytes) -> Version | None:  # noqa: ARG002 - for the subclass
        """Return the version that the last row of a key in one of `owned_topics` must have; None: whatever it has.

        It is that of the newest row that has been acknowledged: what is in the store, not what is folded.
        """
        return None

    def row_version(self, topic: str, row: bytes | None) -> Version:
        """Return the version of a row of `owned_topics`; of a tombstone, and of garbage, one below all others."""
        raise NotImplementedError

    def rewrite(self, p: int, part: Part, topic: str, keys: Collection[bytes]) -> None:
        """Have the newest rows of these keys, all known by `newest`, written again with the next group."""

    def recovered_partition(self, p: int) -> None:
        """Rebuild what is derived, from `self.rows(p)`: the partition is about to be folded."""

    def lost_partition(self, p: int) -> None:
        """Forget what is derived from a partition: it is gone, with all that was not acknowledged."""

    def closes_before(self, append_ms: int) -> bytes:  # noqa: ARG002 - for the subclass
        """Return the marker below which keys may be removed once a record appended at `append_ms` is applied.

        Pure. Markers compare bytewise; empty: nothing is ever removed.
        """
        return b""

    def is_closed(self, key: bytes, marker: bytes) -> bool:  # noqa: ARG002 - for the subclass
        """Tell whether `marker` closes `key`. Pure; a key closed once is closed by every higher marker."""
        return False

    # -- construction

    def __init__(self, app: App, *, name: str, source: str, partitions: int, **options: Any) -> None:
        options.setdefault("schema", BatchSchema())
        options.setdefault("options", dict(ROCKSDB) if app.conf.store.scheme == "exact-rocksdb" else None)
        super().__init__(app, name=name, partitions=partitions, key_type=bytes, value_type=bytes, **options)
        self.app: App = app
        self.source = source
        self.counters = Counters()
        self._parts: dict[int, Part] = {}
        self._assigned: set[int] = set()
        self._recovering = asyncio.Lock()
        self._repair = Repair(self)
        self.overtaken = Overtaken(self)
        self._moved = time.monotonic()
        self._closing = False
        app.folds.append(self)
        app.tables.add(self)
        app.agent(app.topic(source, schema=BatchSchema(), partitions=partitions), name=f"fold_{name}")(self._agent)

    @property
    def store(self) -> Rows:
        """The local store, by partition."""
        return cast(Rows, self.data)

    def part(self, p: int) -> Part | None:
        """Return the partition while it is owned and recovered."""
        return self._parts.get(p)

    def rows(self, p: int) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over a partition's rows: no reserved ones, no closed ones."""
        row = self.store.read(p, CLOSED)
        marker = None if row is None else Closed.decode(row).marker
        for key, raw in self.store.items(p):
            if not reserved(key) and not (marker is not None and self.is_closed(key, marker)):
                yield key, raw

    # -- folding

    async def _agent(self, stream: Any) -> None:
        async for event in stream.noack().events():
            try:
                await self.accept(event.message.partition, event.value)
            except Exception as exc:  # noqa: BLE001 - Faust would acknowledge the batch and go on
                self.app.die(exc)

    async def accept(self, p: int, records: Sequence[Record]) -> None:
        """Fold the records if they go on where the state ends; the generation they were read in does not matter.

        Raises:
            UnfitError: the source is not dense, or not the one that was counted.

        """
        part = self._parts.get(p)
        if part is None or self._closing:
            return  # not ours, or not recovered yet: it will be sought
        if not part.room.is_set():
            await part.room.wait()
            if self._parts.get(p) is not part or self._closing:
                return
        first, end = records[0].offset, records[-1].offset + 1
        if end - first != len(records):
            raise UnfitError(
                f"{self.source}-{p}: offsets {first} to {end - 1} hold {len(records)} records",
                "a source must be neither compacted nor written in transactions",
            )
        if first < part.expected <= end:
            counted = records[part.expected - 1 - first]
            check_record(TP(self.source, p), part.folded, counted.offset, counted.timestamp)
        if end <= part.expected:
            self.counters.skipped += len(records)
            return
        if first > part.expected:
            self.counters.gaps += 1
            self._repair.seek_back(p, part, f"got {first} to {end - 1}")
            return
        if first < part.expected:
            self.counters.skipped += part.expected - first
            records = records[part.expected - first :]
        self.fold(p, part, records)  # synchronous: no cancellation can leave it half done
        self.counters.folded += len(records)
        part.expected, part.newest_ms = end, records[-1].timestamp
        self.moved()
        if part.unacked_since is None:
            part.unacked_since = self._moved
        if end - part.applied.offset >= self.max_unacked:
            part.room.clear()
        self.flush(part)

    def flush(self, part: Part) -> None:
        """Make the partition commit a group soon, also when nothing new was folded."""
        part.waiting = True
        part.wake.set()

    @Service.task
    async def _watch(self) -> None:
        while not self.should_stop:
            await self.sleep(1.0)
            if not self.progress().waiting:
                self.moved()
            await self._repair.watch(self._parts)

    @Service.task
    async def _look_for_late_rows(self) -> None:
        await self.overtaken.run()

    # -- positions and progress

    def expected(self) -> dict[TP, int]:
        """Return the next source offset to fold, by partition."""
        return {TP(self.source, p): part.expected for p, part in self._parts.items()}

    def applied(self) -> dict[TP, int]:
        """Return the position the changelog has acknowledged, by partition."""
        return {TP(self.source, p): part.applied.offset for p, part in self._parts.items()}

    def moved(self) -> None:
        """Note that work goes on."""
        self._moved = time.monotonic()

    def progress(self) -> Progress:
        """Return where the table stands now."""
        now = time.monotonic()
        parts = {
            p: PartProgress(
                part.expected,
                part.applied.offset,
                self.app.source_end(TP(self.source, p)),
                0.0 if part.unacked_since is None else now - part.unacked_since,
            )
            for p, part in self._parts.items()
        }
        return Progress(parts, len(self._assigned - parts.keys()), now - self._moved)

    async def drain(self, seconds: float) -> bool:
        """Fold no more and wait until all that was folded is acknowledged; tell whether it was, in time."""
        self._closing = True
        deadline = time.monotonic() + seconds
        while any(part.waiting or part.applied.offset < part.expected for part in self._parts.values()):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    # -- what Faust calls

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Recover; when this returns Faust, whose recovery did nothing, seeks and resumes. Heartbeats go on."""
        partitions = sorted(tp.partition for tp in active_tps if tp.topic == self.changelog_topic_name)
        app, generation = self.app, self.app.consumer_generation_id
        self._assigned = set(partitions)
        self.moved()
        try:
            async with self._recovering:
                await Recovery(
                    self,
                    partitions,
                    lambda: app.consumer_generation_id == generation and not app.rebalance_pending,
                ).run()
        except (KafkaError, TimeoutError) as exc:
            app.die(f"recovering {self.changelog_topic_name}: {exc!r}")
        except Exception as exc:  # noqa: BLE001 - Faust would log it and go on
            app.die(exc)
        await super().on_recovery_completed(active_tps, standby_tps)

    def install(self, p: int, part: Part) -> None:
        """Begin to fold a recovered partition."""
        self.recovered_partition(p)
        self._parts[p] = part
        if part.dirty:
            self.flush(part)
        part.task = asyncio.ensure_future(commit_groups(self, p, part))
        self.moved()

    def forget(self, p: int) -> None:
        """Drop a partition's memory: what is not acknowledged is folded again, by whoever owns it then."""
        part = self._parts.pop(p, None)
        if part is not None:
            for task in (part.task, part.expiry):
                if task is not None:
                    task.cancel()
            part.room.set()
            self.overtaken.lost(p)
            self.lost_partition(p)

    def forget_all(self) -> None:
        """Drop the memory of all partitions."""
        for p in list(self._parts):
            self.forget(p)

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Drop memory, and let go of the stores of revoked partitions."""
        self.forget_all()
        self._assigned = {tp.partition for tp in assigned if tp.topic == self.source}
        for tp in revoked:
            if tp.topic == self.changelog_topic_name:
                self.store.drop(tp.partition)
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    async def on_stop(self) -> None:
        """Drop memory."""
        self.forget_all()
        await super().on_stop()

    def apply_changelog_batch(self, batch: Any) -> None:
        """Ignore changelog records should Faust deliver any: we have read them ourselves."""

    def on_key_set(self, key: Any, value: Any) -> None:  # noqa: ARG002 - Faust's signature
        """Refuse: rows change only through `fold`.

        Raises:
            TypeError: always.

        """
        raise TypeError(f"{self.name}: rows change only through fold")

    def on_key_del(self, key: Any) -> None:  # noqa: ARG002 - Faust's signature
        """Refuse: rows change only through `fold`.

        Raises:
            TypeError: always.

        """
        raise TypeError(f"{self.name}: rows change only through fold")
