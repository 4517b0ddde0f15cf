"""A tiny fold as the subject of runtime tests, and the process that runs it: `python -m tests.support.counting CONFIG`.

A source record is `KEY AMOUNT`, KEY being `name|bucket` with a decimal bucket; anything else is a dead letter. The
state counts records and adds amounts; a public row shows it, `sums` adds the amounts of a bucket within a partition,
and a bucket closes `lateness` ms after the append time in it. CONFIG is the JSON of a WorkerConfig.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import uvloop

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import TopicSpec
from tallystream.streams.runtime import App, FoldTable, Part, PublicRows, Record, expiry, run

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
    """What a worker process is told."""

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
    """Of each partition, every so manieth fetched batch never reaches the table."""
    drop_first: int = 0
    """Of each partition, fetched batches that never reach the table."""
    sweep: bool = True
    """False: tombstones are never written."""
    padding: int = 0
    """Bytes added to each row of the changelog."""

    def encode(self) -> str:
        return json.dumps(asdict(self))


class Counts(FoldTable):
    """State: [version, records, total]."""

    def __init__(self, app: App, config: WorkerConfig, **options: Any) -> None:
        names = Names(config.prefix)
        super().__init__(app, name="counts", source=names.source, partitions=config.partitions, **options)
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

    def fold(self, p: int, part: Part, records: Sequence[Record]) -> None:
        for record in records:
            parsed = parse(record.value)
            if parsed is None:
                self._dead(p, record, "invalid")
                continue
            key, bucket, amount = parsed
            if part.closed is not None and self.is_closed(key, part.closed):
                if record.offset >= part.settled:
                    self._dead(p, record, "closed")
                continue
            state = part.cache.get(key)
            if state is None:
                raw = self.store.read(p, key)
                state = part.cache[key] = [-1, 0, 0] if raw is None else self.load(raw)
            if state[0] >= record.offset:
                continue
            state[0] = record.offset
            state[1] += 1
            state[2] += amount
            part.dirty[key] = state
            total = self.sums[p].setdefault(bucket, [0, 0])
            total[0] += 1
            total[1] += amount
            self.changed[p].add(bucket)

    def _dead(self, p: int, record: Record, reason: str) -> None:
        value = json.dumps({"reason": reason, "value": (record.value or b"").decode(errors="replace")}).encode()
        self.letters[p].append((f"{p}-{record.offset}".encode(), value))

    def public(self, p: int, states: Mapping[bytes, Any], version: int) -> Sequence[PublicRows]:
        rows = [(key, shown([0, state[0]], state[1], state[2])) for key, state in states.items()]
        changed, self.changed[p] = self.changed[p], set()
        part = self.part(p)
        if part is not None and part.closed is not None:  # the sum of a closed bucket is not whole any more
            changed = {bucket for bucket in changed if int(bucket) >= int(part.closed)}
        sums = [(b"%d|%s" % (p, bucket), shown([0, version], *self.sums[p][bucket])) for bucket in sorted(changed)]
        letters, self.letters[p] = self.letters[p], []
        return [
            PublicRows(self.names.rows, p, rows, self.headers),
            PublicRows(self.names.sums, p, sums, self.headers),
            PublicRows(self.names.deadletters, 0, letters, self.headers),
        ]

    def newest(self, p: int, topic: str, key: bytes) -> tuple[int, int] | None:
        raw = self.store.read(p, key) if topic == self.names.rows else None
        return None if raw is None else (0, self.version(raw))

    def row_version(self, topic: str, row: bytes | None) -> tuple[int, int]:
        generation, offset = json.loads(row or b"{}").get("version", (-1, -1))
        return generation, offset

    def rewrite(self, p: int, part: Part, topic: str, keys: Collection[bytes]) -> None:
        for key in keys:
            part.cache[key] = part.dirty[key] = part.cache.get(key) or self.load(self.store.read(p, key) or b"")

    def recovered_partition(self, p: int) -> None:
        sums = self.sums[p] = {}
        self.letters[p] = []
        for key, raw in self.rows(p):
            _, records, total = self.load(raw)
            bucket = sums.setdefault(key.split(b"|")[1], [0, 0])
            bucket[0] += records
            bucket[1] += total
        self.changed[p] = set(sums)

    def lost_partition(self, p: int) -> None:
        for of_partition in (self.sums, self.changed, self.letters):
            of_partition.pop(p, None)

    def closes_before(self, append_ms: int) -> bytes:
        lateness = self.config.lateness
        return b"" if lateness is None else b"%020d" % max(0, append_ms - lateness)

    def is_closed(self, key: bytes, marker: bytes) -> bool:
        return int(key.split(b"|")[1]) < int(marker)


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
    """A process of a test would have ended."""


def ended(code: int) -> NoReturn:
    """Stand in for os._exit."""
    raise EndedError(code)


def build(config: WorkerConfig, table: type[Counts] = Counts, **settings: Any) -> tuple[App, Counts]:
    """Return the app and its table; `table` lets a test take a promise away, to see that it is missed."""
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
    counts = table(app, config)
    type(counts).linger = config.linger
    if config.drop_every or config.drop_first:
        accept, seen = counts.accept, Counter[int]()

        async def lossy(p: int, records: Sequence[Record]) -> None:
            seen[p] += 1
            if seen[p] > config.drop_first and (not config.drop_every or seen[p] % config.drop_every):
                await accept(p, records)

        counts.accept = lossy  # type: ignore[method-assign]  # fault injection
    if not config.sweep:
        expiry.start = lambda *_: None
    return app, counts


async def report(app: App, table: Counts, path: Path) -> None:
    """Keep `path` up to date."""
    while True:
        progress = table.progress()
        document = {
            **asdict(table.counters),
            "rebalances": app.rebalances,
            "parts": {p: [part.expected, part.applied] for p, part in progress.parts.items()},
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
