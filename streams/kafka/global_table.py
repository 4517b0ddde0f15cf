"""A complete local copy of compacted topics: the newest row of each key.

It is like a GlobalKTable of Kafka Streams. It is only a cache: rows and topic positions are written in one batch, so a
crash leaves an older consistent copy, and a directory that is lost, or belongs to another cluster or to recreated
topics, is filled again from the topics.

It forgets what the topics forget: a removed key when its tombstone is read, and rows whose records retention has
removed. A copy that was not kept up to date for so long that Kafka may have removed tombstones is filled again.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

import rocksdict
import structlog
from aiokafka import ConsumerRecord

from tallystream.schemas.versions import supersedes
from tallystream.streams.identity import Identity, read_identity
from tallystream.streams.kafka.errors import TopicRecreatedError
from tallystream.streams.kafka.follower import FollowedBatch, FollowerPosition, TopicFollower
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.local_database import LocalDatabase

log = structlog.get_logger()
FORMAT = 3
_HEAD = struct.Struct(">qqqIiq")
"""Of a row: version, timestamp, and where its record is: a checksum of the topic's name, partition, offset."""
_META = b"\0"
_IDENTITY = _META + b"identity"
_COMPLETE = _META + b"complete"
"""When (ms since the epoch) the rows included everything last."""
NOTE_EVERY_MS = 60_000
AWAY_MS = 23 * 3_600_000
"""Time after which a copy that was not complete is filled again; Kafka removes tombstones after a day
(delete.retention.ms)."""
LOOK_EVERY = 600.0
"""Seconds between two looks at the topics' first offsets."""
ROWS_A_TURN = 1_000
"""Rows examined between two polls, when records have been removed."""


class TableRow(NamedTuple):
    """A row to store unless its `version` is lower than the stored one. `value` None removes the key regardless of the
    version. Keys begin with a byte above 0.
    """

    key: bytes
    version: tuple[int, int]
    value: bytes | None


class StoredRow(NamedTuple):
    """A stored row; `timestamp` is its record's, in ms."""

    version: tuple[int, int]
    timestamp: int
    value: bytes


class Feed(Protocol):
    """A topic, and how its records become rows."""

    @property
    def topic(self) -> str:
        """The topic."""
        ...

    def rows(self, record: ConsumerRecord) -> Iterable[TableRow]:
        """Return the rows of a record, of which there may be several.

        Raises:
            ValueError: the record is not valid for the topic.

        """
        ...


OnRows = Callable[[Feed, Sequence[tuple[bytes, int]]], None]
"""Called with the keys of a batch that were changed and their records' timestamps (ms), after they are stored."""


class GlobalTable:
    """Rows of several feeds in one RocksDB. `start`, then `run` in a task; `stop` at the end.

    One process at a time may have `directory`: RocksDB locks it.
    """

    def __init__(self, kafka: KafkaSettings, directory: Path, feeds: Sequence[Feed]) -> None:
        self._kafka = kafka
        self._directory = directory
        self._feeds = {feed.topic: feed for feed in feeds}
        self._db: Any = None
        self._scans: WeakSet[Generator[tuple[bytes, StoredRow], None, None]] = WeakSet()
        """Those that were not read to their end, perhaps because their reader has failed."""
        self._tail: TopicFollower | None = None
        self._paused: set[str] = set()
        self._completed_ms = 0
        self._begins: Mapping[tuple[str, int], int] = {}
        """The first offsets up to which removed records have been forgotten."""
        self._looked = float("-inf")
        self._sweep: bytes | None = None
        """The key up to which rows have been examined; None when none need be."""
        self.read: Mapping[tuple[str, int], int] = {}
        """By topic and partition, the offset up to which rows are stored and `on_rows` was called."""
        self.caught_up = asyncio.Event()
        """Set while the rows include everything that the topics contained when they were last opened."""
        self.unreadable = 0
        """Number of records skipped because they are not valid for their topic."""

    # -- rows

    def get(self, key: bytes) -> StoredRow | None:
        """Return a row."""
        raw = self._db.get(key)
        return None if raw is None else _unpack(raw)

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, StoredRow]]:
        """Iterate over the rows whose keys begin with `prefix`, in the order of keys, those after `after` if given.

        It ends when the table is stopped.
        """
        found = self._scan(prefix, after)
        self._scans.add(found)
        return found

    def _scan(self, prefix: bytes, after: bytes | None) -> Generator[tuple[bytes, StoredRow], None, None]:
        for key, raw in self._db.items(from_key=after or prefix):
            if not key.startswith(prefix):
                if after is not None and key < prefix:
                    continue
                return
            if key != after:
                yield key, _unpack(raw)

    def put(self, row: TableRow, timestamp: int) -> None:
        """Store a row that is known to be in its topic, without waiting to read it."""
        self._write([(row, timestamp, -1)], None)

    # -- following the topics

    async def start(self) -> None:
        """Open the directory; contents of another deployment are discarded.

        Raises:
            UnreachableError: Kafka does not answer.

        """
        identity = await self._identify()
        self._open()
        found = self._db.get(_IDENTITY)
        difference = identity.difference(_identity_of(found)) if found else ""
        if found is None or difference:
            fresh = next(iter(self._db.items()), None) is None
            self._wipe(difference or ("" if fresh else "it does not name its cluster and prefix"))
        elif _now_ms() - int(self._db.get(_COMPLETE) or b"0") > AWAY_MS:
            self._wipe("it was not kept up to date for so long that removed keys may not be known any more")
        self._begin(identity)

    async def run(self, on_rows: OnRows) -> None:
        """Follow the topics until cancelled.

        Raises:
            UnreachableError: Kafka does not answer; the rows are kept and `run` may be called again.

        """
        while True:
            try:
                await self._follow(on_rows)
            except TopicRecreatedError as exc:
                self._tail = None
                self._wipe(str(exc))
                self._begin(await self._identify())

    def pause(self, topics: Iterable[str]) -> None:
        """Stop following these topics until `resume`."""
        self._paused |= set(topics)
        if self._tail is not None:
            self._tail.pause(self._paused)

    def resume(self) -> None:
        """Follow all topics again."""
        if self._paused and self._tail is not None:
            self._tail.resume(self._paused)
        self._paused = set()

    @property
    def behind(self) -> int:
        """Return how many offsets are still to be read before the table has caught up."""
        return self._tail.behind if self._tail is not None else 0

    async def stop(self) -> None:
        """Close the directory."""
        if self._db is not None:
            self._close()
            self._db = None

    async def _follow(self, on_rows: OnRows) -> None:
        self.caught_up.clear()
        self.read = {}
        async with TopicFollower(self._kafka, self._feeds, self._positions()) as tail:
            self._tail = tail
            try:
                tail.pause(self._paused)
                while True:
                    for batch in await tail.poll():
                        feed = self._feeds[batch.topic]
                        if changed := self._apply(feed, batch):
                            on_rows(feed, changed)
                        await asyncio.sleep(0)
                    self.read = tail.positions()
                    if not self.caught_up.is_set() and tail.behind == 0:
                        self.caught_up.set()
                    if self.caught_up.is_set():
                        self._note_complete()
                        await self._forget(tail)
            finally:
                self._tail = None

    def _apply(self, feed: Feed, batch: FollowedBatch) -> list[tuple[bytes, int]]:
        rows: list[tuple[TableRow, int, int]] = []
        for record in batch.records:
            try:
                rows.extend((row, record.timestamp, record.offset) for row in feed.rows(record))
            except (ValueError, TypeError, KeyError, AttributeError) as exc:
                self.unreadable += 1
                log.warning(
                    "unreadable_row", topic=batch.topic, partition=batch.partition, offset=record.offset,
                    why=type(exc).__name__,
                )  # fmt: skip
        return self._write(rows, batch)

    def _note_complete(self) -> None:
        now = _now_ms()
        if not 0 <= now - self._completed_ms < NOTE_EVERY_MS:
            self._db.put(_COMPLETE, b"%d" % now)
            self._completed_ms = now

    async def _forget(self, tail: TopicFollower) -> None:
        """Remove some of the rows whose records retention has removed, so that following is not held up.

        Nobody is told: what is made of such a row stays as it is.
        """
        if self._sweep is None:
            if time.monotonic() - self._looked < LOOK_EVERY:
                return
            begins = await tail.begins()
            self._looked = time.monotonic()
            if any(begin > self._begins.get(at, 0) for at, begin in begins.items()):
                self._sweep = b"\1"
            self._begins = begins
        if self._sweep is None:
            return
        begins_of = {(_sum_of(topic), p): begin for (topic, p), begin in self._begins.items()}
        removed = rocksdict.WriteBatch(raw_mode=True)
        examined = 0
        for key, raw in self._db.items(from_key=self._sweep):
            topic, partition, offset = _HEAD.unpack_from(raw)[3:]
            if 0 <= offset < begins_of.get((topic, partition), 0):
                removed.delete(key)
            self._sweep, examined = key, examined + 1
            if examined >= ROWS_A_TURN:
                break
        self._db.write(removed)
        if examined < ROWS_A_TURN:
            self._sweep = None

    def _write(self, rows: Iterable[tuple[TableRow, int, int]], batch: FollowedBatch | None) -> list[tuple[bytes, int]]:
        """Write rows, given with timestamp and offset, that are not older than the stored ones, and the position;
        return the changes.
        """
        place = (0, 0) if batch is None else (_sum_of(batch.topic), batch.partition)
        written: dict[bytes, tuple[tuple[int, int], int, int, bytes | None]] = {}
        for row, timestamp, offset in rows:
            if row.value is not None:
                have = written.get(row.key)
                if have is not None and have[3] is not None:
                    newest: tuple[int, int] | None = have[0]
                elif have is not None:
                    newest = None
                else:
                    raw = self._db.get(row.key)
                    newest = None if raw is None else _HEAD.unpack_from(raw)[:2]
                if not supersedes(row.version, newest):
                    continue
            written[row.key] = row.version, timestamp, offset, row.value
        changes = rocksdict.WriteBatch(raw_mode=True)
        for key, (version, timestamp, offset, value) in written.items():
            if value is None:
                changes.delete(key)
            else:
                changes.put(key, _HEAD.pack(*version, timestamp, *place, offset) + value)
        if batch is not None:
            name = _META + f"{batch.topic}|{batch.partition}".encode()
            changes.put(name, b"%d %d" % batch.after)
        self._db.write(changes)
        return [(key, timestamp) for key, (_, timestamp, _, _) in written.items()]

    def _positions(self) -> dict[tuple[str, int], FollowerPosition]:
        found = {}
        for key, raw in self._db.items(from_key=_META):
            if not key.startswith(_META):
                break
            topic, bar, partition = key[1:].decode().rpartition("|")
            if bar:
                offset, timestamp = raw.split(b" ")
                found[topic, int(partition)] = FollowerPosition(int(offset), int(timestamp))
        return found

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(16 << 20)
        options.set_max_write_buffer_number(2)
        path = self._directory / "rows"
        self._db = LocalDatabase(path, lambda: rocksdict.Rdict(str(path), options), _warn_of_damage)

    def _begin(self, identity: Identity) -> None:
        """Note whose copy it is; a new one counts as complete for now, so that a long first filling is not repeated."""
        self._db.put(_IDENTITY, _packed(identity))
        if self._db.get(_COMPLETE) is None:
            self._db.put(_COMPLETE, b"%d" % _now_ms())

    def _close(self) -> None:
        """Close the database. A scan that has not ended would keep it open, and it could not be opened again."""
        for scan in list(self._scans):
            scan.close()
        self._db.close()

    def _wipe(self, why: str) -> None:
        if why:
            log.warning("local_copy_discarded", why=why, next="it is filled again from the topics")
        self._close()
        shutil.rmtree(self._directory / "rows")
        self._open()
        self._begins, self._looked, self._sweep = {}, float("-inf"), None

    async def _identify(self) -> Identity:
        """Return the identity that the directory must have: this cluster and these topics."""
        return await read_identity(self._kafka, "", self._feeds)


def _warn_of_damage(why: str) -> None:
    log.warning("local_copy_damaged", why=why[:200], next="it is filled again from the topics")


def _packed(identity: Identity) -> bytes:
    return json.dumps([FORMAT, identity.cluster_id, dict(identity.topic_ids)]).encode()


def _identity_of(raw: bytes) -> Identity:
    """Return the stored identity; one of another format does not match any deployment."""
    try:
        form, cluster_id, topic_ids = json.loads(raw)
    except ValueError:
        return Identity("", "")
    return Identity(cluster_id if form == FORMAT else "", "", topic_ids)


def _sum_of(topic: str) -> int:
    return zlib.crc32(topic.encode())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _unpack(raw: bytes) -> StoredRow:
    major, minor, timestamp, *_ = _HEAD.unpack_from(raw)
    return StoredRow((major, minor), timestamp, raw[_HEAD.size :])
