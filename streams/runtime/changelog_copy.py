"""Copies changelogs into the local store, in steps: for recovery, and for a standby that will recover later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import structlog
from aiokafka.structs import TopicPartition

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime.changelog import (
    DERIVED,
    DERIVED_FORMAT,
    EMPTYING,
    HIDDEN,
    TAIL,
    hidden_keys,
    hidden_row,
    replay,
    reserved,
    tail_of,
)
from tallystream.streams.runtime.cut_check import find_cut
from tallystream.streams.runtime.fold import Fold, InputRecord
from tallystream.streams.runtime.host import Host, Reader
from tallystream.streams.runtime.progress import Counters, FoldActivity
from tallystream.streams.runtime.store import RowStore

_log = structlog.get_logger()
MAX_REPLAYED = 4_000
"""Changelog records replayed in one turn of the event loop, 20 ms; probes are answered in between."""
ABREAST = 4
"""Partitions that are read at a time."""
FETCH_BYTES = 2 << 20
"""Bytes of one partition in one fetch."""
MAX_RECORDS = 1_000
"""Rows examined in one turn of the event loop."""
MANY = 5_000
"""Records of a partition from which on they are written without RocksDB's log. A crash meanwhile leaves an older state
of the copy, which is read on from there; the log would take a third of the time, and only saves the last few records.
"""
TAIL_BYTES = 1 << 16
"""Bytes of one partition in one fetch, where only a single record of each is wanted.

A broker always sends the first batch of a fetch completely, however small the limit. With a limit of one byte it would
answer for one partition at a time, and twelve partitions took a second.
"""
PATIENCE = 60.0
"""Seconds without a record after which reading is given up."""
_KEY, _VALUE = attrgetter("key"), attrgetter("value")


class Unseen:
    """Tells of most keys that have not come yet that they have not, so that an empty store is not asked for each.

    A byte for each value that a key's hash may have in so many bits: a key with another one's is looked up for nothing.
    """

    def __init__(self, records: int) -> None:
        size = 1 << min(22, (8 * records).bit_length())
        self._slots = bytearray(size)
        self._mask = size - 1

    def reading(self, read: Callable[[bytes], bytes | None]) -> Callable[[bytes], bytes | None]:
        """Return what reads like `read`, which has nothing that it was not asked for."""
        slots, mask = self._slots, self._mask

        def found(key: bytes) -> bytes | None:
            slot = hash(key) & mask
            if slots[slot]:
                return read(key)
            slots[slot] = 1
            return None

        return found


@dataclass(frozen=True)
class ChangelogCopy:
    """Brings the store's copies of changelog partitions up to date; a step that is no longer `current` changes nothing.

    Promise: after each write the copy equals the changelog up to the store's changelog offset, including which keys
    have to be written again (`hidden`), so any later reading may continue there.

    `rest` is how many seconds to pause for each second of work.
    """

    fold: Fold
    host: Host
    store: RowStore
    changelog: str
    counters: Counters
    activity: FoldActivity
    topic_ids: Mapping[str, str]
    rest: float = 0.0

    async def catch_up(
        self,
        reader: Reader,
        tails: Reader,
        logs: Sequence[TopicPartition],
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        current: Callable[[], bool],
    ) -> bool:
        """Copy the changelogs up to `ends`; return whether that was reached. `tails` reads single records.

        Raises:
            UnfitError: a local store does not match its changelog.
            KafkaError: Kafka does not answer.
            TimeoutError: Kafka does not return any records.

        """
        for log in logs:
            if not current():
                return False
            if self.store.read(log.partition, EMPTYING) is not None:
                self._empty(log.partition)
            if not await self._derive_anew(log.partition, current):
                return False
        cut = await find_cut(tails, self.host.monotonic, self.store, logs, begins, ends, current)
        if not current():
            return False
        for log in cut:
            _log.warning("local_store_made_again", partition=log.partition, why="the changelog has been cut")
            self._empty(log.partition)
        if not await self._read(reader, self._starts(logs, begins, ends), ends, current):
            return False
        for log in logs:
            if self.store.changelog_offset(log.partition) < ends[log] - 1:  # compaction has removed the last records
                self.store.write(log.partition, [(TAIL, None)], ends[log] - 1)
        return True

    def hidden(self, p: int) -> frozenset[bytes]:
        """Return the keys of a partition whose last record in the copied part is not their newest version."""
        return hidden_keys(self.store.read(p, HIDDEN))

    async def _read(
        self,
        reader: Reader,
        left: dict[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        current: Callable[[], bool],
    ) -> bool:
        if left:
            reader.assign(left)
        many = {log for log, start in left.items() if ends[log] - start >= MANY}
        unseen = {log: Unseen(ends[log]) for log in many if self.store.changelog_offset(log.partition) < 0}
        deadline = self.host.monotonic() + PATIENCE
        while left:
            # Few at a time, so that few have rows in memory; while one is fetched, the others are read. Where these
            # have nothing, others may have.
            some = list(left)[:ABREAST]
            got = await reader.poll(some, MAX_REPLAYED) or await reader.poll(list(left), MAX_REPLAYED)
            if not current():
                return False
            for log, records in got.items():
                began = self.host.monotonic()
                self._replay(log.partition, records, log in many, unseen.get(log))
                await asyncio.sleep(self.rest * (self.host.monotonic() - began))
                if not current():
                    return False
            for log in list(left):
                if await reader.position(log) >= ends[log]:
                    del left[log]
                    self.store.flush(log.partition, wait=False)
            if got:
                deadline = self.host.monotonic() + PATIENCE
                self.activity.moved()
            elif self.host.monotonic() > deadline:
                raise TimeoutError(f"no records from {', '.join(f'{log.topic}-{log.partition}' for log in left)}")
            if not current():
                return False
        for log in many:
            self.store.flush(log.partition)
        return True

    def _starts(
        self,
        logs: Sequence[TopicPartition],
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
    ) -> dict[TopicPartition, int]:
        """Return where to start reading each changelog that has more records than the store."""
        starts = {}
        for log in logs:
            have = self.store.changelog_offset(log.partition) + 1
            if have > ends[log] and self.topic_ids.get(self.changelog):
                self._empty(log.partition)  # the same topic, but truncated: its contents are authoritative
                have = 0
            if have > ends[log]:
                raise UnfitError(
                    f"{log.topic}-{log.partition}: the local store has read up to {have}, the changelog ends at"
                    f" {ends[log]}: was it deleted?",
                    "if it was deleted on purpose, remove the worker's data directory",
                )
            start = max(have, begins[log])
            if start < ends[log]:
                starts[log] = start
        return starts

    async def _derive_anew(self, p: int, current: Callable[[], bool]) -> bool:
        """Write the derived rows of a store that lacks them or has another format; return whether it finished."""
        store, wanted = self.store, self.fold.derived_format
        if not wanted or store.read(p, DERIVED_FORMAT) == wanted:
            return True
        offset = store.changelog_offset(p)
        store.write(p, [(DERIVED_FORMAT, None)], offset)
        for chunk in store.chunks(p, MAX_RECORDS):
            if not current():
                return False
            store.write(p, [(key, None) for key in chunk if key.startswith(DERIVED)], offset)
            await asyncio.sleep(0)
        for chunk in store.chunks(p, MAX_RECORDS):
            if not current():
                return False
            made = [(key, None, store.read(p, key)) for key in chunk if not reserved(key)]
            store.write(p, self.fold.derive(p, made, lambda key: store.read(p, key)), offset)
            self.activity.moved()
            await asyncio.sleep(0)
        if not current():
            return False
        store.write(p, [(DERIVED_FORMAT, wanted)], offset)
        return True

    def _empty(self, p: int) -> None:
        """Remove everything from the store of a partition; if the process ends meanwhile, its successor goes on."""
        self.store.write(p, [(EMPTYING, b"1")], -1)
        for chunk in self.store.chunks(p, MAX_RECORDS):
            self.store.write(p, [(key, None) for key in chunk if key != EMPTYING], -1)
        self.store.write(p, [(EMPTYING, None), (DERIVED_FORMAT, self.fold.derived_format or None)], -1)

    def _replay(self, p: int, records: Sequence[InputRecord], many: bool, unseen: Unseen | None) -> None:
        known = self.hidden(p)
        hidden, store = set(known), self.store

        def read(key: bytes) -> bytes | None:
            return store.read(p, key)

        replayed = replay(
            zip(map(_KEY, records), map(_VALUE, records), strict=True),
            read if unseen is None else unseen.reading(read),
            self.fold.version,
            hidden,
        )
        derived = self.fold.derive(p, replayed.replaced, read)
        last = records[-1]
        rows = [*replayed.rows.items(), *derived, (TAIL, tail_of(last.offset, last.key, last.value))]
        if hidden != known:
            rows.append((HIDDEN, hidden_row(hidden)))
        store.write(p, rows, last.offset, logged=not many)
        self.counters.recovered += len(records)
        self.counters.zombie_records += replayed.zombies
        self.counters.unknown_records += replayed.unknown
