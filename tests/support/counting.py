"""A small fold for runtime tests, and the process that runs it: `python -m tests.support.counting CONFIG`.

A source record is `KEY AMOUNT`, where KEY is `name|bucket` with a decimal bucket; any other record becomes a dead
letter. The state counts records and adds amounts, and a public row shows it. `sums` adds the amounts of a bucket within
a partition. A bucket closes `lateness` ms after the append time in it. CONFIG is the JSON of a WorkerConfig.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import uvloop
from faust.types import TP

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import TopicSpec
from tallystream.streams.runtime import Engine, Fold, Group, InputRecord, Partition, PublicRows
from tallystream.streams.runtime.changelog import reserved
from tallystream.streams.runtime.faust_backend import App, FoldTable, run
from tallystream.streams.runtime.faust_backend.batches import BatchScheduler

ROW = struct.Struct("<qqq")
HEADERS = [("schema", b"count/1")]


@dataclass(frozen=True)
class Names:
    """The topics of one test."""

    prefix: str

    @property
    def source(self) -> str:
        return f"{self.prefix}.source"

    @property
    def rows(self) -> str:
        return f"{self.prefix}.rows"

    @property
    def sums(self) -> str:
        return f"{self.prefix}.sums"

    @property
    def deadletters(self) -> str:
        return f"{self.prefix}.deadletters"

    @property
    def group(self) -> str:
        return f"{self.prefix}-worker"

    @property
    def changelog(self) -> str:
        return f"{self.group}-counts-changelog"

    def specs(self, partitions: int) -> tuple[TopicSpec, ...]:
        compact = {"cleanup.policy": "compact", "min.compaction.lag.ms": "86400000"}
        return (
            TopicSpec(self.source, partitions, {"retention.ms": "-1"}),
            TopicSpec(self.changelog, partitions, compact),
            TopicSpec(self.rows, partitions, compact),
            TopicSpec(self.sums, partitions, compact),
            TopicSpec(self.deadletters, 1),
        )


@dataclass(frozen=True)
class WorkerConfig:
    """The configuration of a worker process."""

    bootstrap: str
    prefix: str
    partitions: int
    datadir: str
    status: str
    """File that always holds the worker's latest counters and progress."""
    writer: str = "w"
    """Header of every public row and dead letter: tells who wrote it."""
    store: Literal["rocksdb", "memory"] = "rocksdb"
    instance: str | None = None
    session_timeout: float = 6.0
    linger: float = 0.0
    max_batch_size: int = 900_000
    lateness: int | None = None
    """ms after which a bucket (a time in ms) is closed; None: never."""
    drop_every: int = 0
    """In each partition, every n-th fetched batch does not reach the table."""
    drop_first: int = 0
    """In each partition, the fetched batches that do not reach the table."""
    tear_every: int = 0
    """In each partition, only the first half of every n-th fetch leaves the scheduler."""
    sweep: bool = True
    """False: tombstones are never written."""
    standby: bool = False
    padding: int = 0
    """Bytes added to each row of the changelog."""

    def encode(self) -> str:
        return json.dumps(asdict(self))


class Counts(Fold):
    """State: [version, records, total]."""

    def __init__(self, config: WorkerConfig) -> None:
        self.name = "counts"
        self.linger = config.linger
        names = Names(config.prefix)
        self.config = config
        self.names = names
        self.owned_topics = (names.rows,)
        self.headers = [*HEADERS, ("writer", config.writer.encode())]
        self.sums: dict[int, dict[bytes, list[int]]] = {}
        self.changed: dict[int, set[bytes]] = {}
        self.letters: dict[int, list[tuple[bytes, bytes]]] = {}

    def load(self, raw: bytes) -> list[int]:
        return list(ROW.unpack_from(raw))

    def dump(self, state: list[int]) -> bytes:
        return ROW.pack(*state) + bytes(self.config.padding)

    def version(self, raw: bytes) -> int:
        version: int = ROW.unpack_from(raw)[0]
        return version

    def fold(self, partition: Partition, records: Sequence[InputRecord]) -> None:
        p = partition.number
        for record in records:
            parsed = parse(record.value)
            if parsed is None:
                self._dead(p, record, "invalid")
                continue
            key, bucket, amount = parsed
            if partition.watermark is not None and self.is_closed(key, partition.watermark):
                if record.offset >= partition.settled:
                    self._dead(p, record, "closed")
                continue
            state = partition.cache.get(key)
            if state is None:
                raw = partition.stored(key)
                state = partition.cache[key] = [-1, 0, 0] if raw is None else self.load(raw)
            if state[0] >= record.offset:
                continue
            state[0] = record.offset
            state[1] += 1
            state[2] += amount
            partition.dirty[key] = state
            total = self.sums[p].setdefault(bucket, [0, 0])
            total[0] += 1
            total[1] += amount
            self.changed[p].add(bucket)

    def _dead(self, p: int, record: InputRecord, reason: str) -> None:
        value = json.dumps({"reason": reason, "value": (record.value or b"").decode(errors="replace")}).encode()
        self.letters[p].append((f"{p}-{record.offset}".encode(), value))

    def group(self, partition: Partition, states: Mapping[bytes, Any], version: int) -> Group:
        p = partition.number
        rows = [(key, shown([0, state[0]], state[1], state[2])) for key, state in states.items()]
        changed, self.changed[p] = self.changed[p], set()
        if partition.watermark is not None:  # the sum of a closed bucket is no longer complete
            changed = {bucket for bucket in changed if int(bucket) >= int(partition.watermark)}
        sums = [(b"%d|%s" % (p, bucket), shown([0, version], *self.sums[p][bucket])) for bucket in sorted(changed)]
        letters, self.letters[p] = self.letters[p], []
        return Group(
            [(key, self.dump(state)) for key, state in states.items()],
            [
                PublicRows(self.names.rows, p, rows, self.headers),
                PublicRows(self.names.sums, p, sums, self.headers),
                PublicRows(self.names.deadletters, 0, letters, self.headers),
            ],
        )

    def public_key(self, partition: Partition, topic: str, key: bytes) -> bytes | None:
        return None if reserved(key) or topic != self.names.rows else key

    def is_current(self, partition: Partition, topic: str, key: bytes, row: bytes | None) -> bool:
        raw = partition.stored(key) if topic == self.names.rows else None
        if raw is None:
            return True
        state = self.load(raw)
        return row == shown([0, state[0]], state[1], state[2])

    def rewrite(self, partition: Partition, topic: str, keys: Collection[bytes]) -> None:
        for key in keys:
            state = partition.cache.get(key) or self.load(partition.stored(key) or b"")
            partition.cache[key] = partition.dirty[key] = state

    def recovered(self, partition: Partition) -> None:
        p = partition.number
        sums: dict[bytes, list[int]] = {}
        self.sums[p] = sums
        self.letters[p] = []
        for key, raw in partition.rows(self.is_closed):
            _, records, total = self.load(raw)
            bucket = sums.setdefault(key.split(b"|")[1], [0, 0])
            bucket[0] += records
            bucket[1] += total
        self.changed[p] = set(sums)

    def lost(self, number: int) -> None:
        for of_partition in (self.sums, self.changed, self.letters):
            of_partition.pop(number, None)

    def watermark(self, append_ms: int) -> bytes:
        lateness = self.config.lateness
        return b"" if lateness is None else b"%020d" % max(0, append_ms - lateness)

    def is_closed(self, key: bytes, watermark: bytes) -> bool:
        return int(key.split(b"|")[1]) < int(watermark)


def parse(value: bytes | None) -> tuple[bytes, bytes, int] | None:
    """Return key, bucket and amount of a source record, None when it is not one."""
    try:
        key, amount = (value or b"").split(b" ")
        _, bucket = key.split(b"|")
        int(bucket)
        return key, bucket, int(amount)
    except ValueError:
        return None


def shown(version: list[int], records: int, total: int) -> bytes:
    """Return a public row."""
    return json.dumps({"version": version, "records": records, "total": total}).encode()


class EndedError(Exception):
    """Raised where a real process would have exited."""


def ended(code: int) -> NoReturn:
    """Stand in for os._exit."""
    raise EndedError(code)


class CountsTable(FoldTable):
    """The table of a Counts; `fold` is its fold."""

    def __init__(self, app: App, fold: Counts, engine: type[Engine] = Engine) -> None:
        config = fold.config
        super().__init__(
            app, fold, source=fold.names.source, partitions=config.partitions, standby=config.standby, engine=engine
        )
        self.fold = fold


class Torn(BatchScheduler):
    """Loses records in the middle of a fetch, as faust-streaming 751 does when a topic's buffer is replaced meanwhile.

    The consumer has passed them already, and whatever is fetched later is handed over.
    """

    every: ClassVar[int] = 0
    fetches: ClassVar[Counter[int]] = Counter()

    def iterate(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, Any]]:
        """Yield the batches of what is left of each fetch."""
        left = {}
        for tp, fetched in records.items():
            self.fetches[tp.partition] += 1
            torn = self.fetches[tp.partition] % self.every == 0
            left[tp] = fetched[: len(fetched) // 2] if torn else fetched
        return super().iterate(left)


def build(config: WorkerConfig, engine: type[Engine] = Engine, **settings: Any) -> tuple[App, CountsTable]:
    """Return the app and its table; `engine` lets a test remove a safeguard, to see that this is noticed."""
    if config.tear_every:
        Torn.every = config.tear_every
        settings["ConsumerScheduler"] = Torn
    app = App(
        Names(config.prefix).group,
        KafkaSettings(config.bootstrap),
        datadir=Path(config.datadir),
        partitions=config.partitions,
        store=config.store,
        instance=config.instance,
        session_timeout=config.session_timeout,
        rebalance_timeout=6.0,
        heartbeat_interval=config.session_timeout / 4,
        broker_commit_interval=0.2,
        producer_max_batch_size=config.max_batch_size,
        **settings,
    )
    table = CountsTable(app, Counts(config), engine)
    if config.drop_every or config.drop_first:
        accept, seen = table.engine.accept, Counter[int]()

        async def lossy(p: int, records: Sequence[InputRecord]) -> None:
            seen[p] += 1
            if seen[p] > config.drop_first and (not config.drop_every or seen[p] % config.drop_every):
                await accept(p, records)

        table.engine.accept = lossy  # type: ignore[method-assign]  # fault injection
    if not config.sweep:
        table.engine.expiry.start = lambda *_: None  # type: ignore[method-assign]
    return app, table


async def report(app: App, table: CountsTable, path: Path) -> None:
    """Keep `path` up to date."""
    while True:
        progress = table.engine.progress()
        document = {
            **asdict(table.engine.counters),
            "rebalances": app.rebalances,
            "standby": asdict(table.standby.progress()) if table.standby is not None else {},
            "partitions": {p: [one.expected, one.applied] for p, one in progress.partitions.items()},
            "ready": app.ready().ok,
            "healthy": app.healthy().ok,
        }
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(document))
        scratch.rename(path)
        await asyncio.sleep(0.1)


async def main(config: WorkerConfig) -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s %(message)s")
    app, table = build(config)
    reporting = asyncio.create_task(report(app, table, Path(config.status)))
    await run(app)
    reporting.cancel()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(WorkerConfig(**json.loads(sys.argv[1]))))
