"""Mishaps of machines: power cuts, volumes restored with older contents, disks that are full at the start."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tests.chaos.disks import filled
from tests.chaos.faults import (
    Blow,
    Ring,
    answering,
    flowing,
    kill_with_full_spool,
    kill_worker,
    kind,
    stopped,
    worker_partitions,
)
from tests.chaos.parts import Part
from tests.chaos.witness import Witness, behind
from tests.support.power_cut import Unsynced, cut_tail
from tests.support.waiting import eventually

from tallystream.schemas import keys
from tallystream.schemas.hours import HOUR_NS
from tallystream.streams.gateway.spool.slots import spools
from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.kafka.partitioning import partition_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics

SYNCED = 2.5
"""Seconds after which the embedded broker has flushed all records (twice `log.flush.interval.ms`)."""


@kind("power-cut")
def power_cut(ring: Ring) -> Blow:
    """Kill everything at once, and cut off what was not on the disk: ends of Kafka's logs and of the stores'."""
    cluster = ring.cluster
    logs = cluster.folder / "kafka" / "log"
    promised = asyncio.run(flushed_at_once(cluster.kafka, [spec.name for spec in cluster.topics.all()]))
    unsynced = Unsynced(logs, promised)
    since = time.monotonic()
    eventually(lambda: time.monotonic() - since > SYNCED, "what was there is flushed")
    cluster.witness.stop()
    parts: list[Part] = [part for part in cluster.parts if part.wanted]
    for part in parts:
        part.wanted = False
    cluster.signal_broker(signal.SIGSTOP)  # at the same moment from Kafka's point of view
    in_flight = eventually(lambda: ring.fleet.truth.in_flight, "requests are under way")
    for part in parts:
        part.signal(signal.SIGKILL)
    cluster.kill_broker()
    for part in parts:
        eventually(lambda part=part: not part.alive, f"{part.name} has ended")  # type: ignore[misc]
    lost = unsynced.cut(cluster.random)
    for worker in cluster.workers:
        for wal in newest_logs(cluster.data(worker.name) / "workers"):
            cut_tail(wal, 0, cluster.random)
    cluster.start_broker()
    for part in parts:
        part.wanted = True
    # The changelog that the old process has read may be cut.
    cluster.witness = Witness(cluster.kafka, cluster.topics)
    cluster.witness.start()
    answering(ring)
    flowing(ring)
    note = f"{sum(lost.values()):,} bytes of {len(lost)} logs were not on the disk"
    return Blow("power-cut", len(parts) + 1, in_flight, "requests", note)


async def flushed_at_once(kafka: KafkaSettings, topics: list[str]) -> frozenset[str]:
    """Return the topics whose messages Kafka flushes before it acknowledges them."""
    async with opened(AIOKafkaAdminClient(**kafka.client())) as admin:
        existing = set(await admin.list_topics())
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics if topic in existing]
        answers = await admin.describe_configs(wanted)
    return frozenset(
        name
        for answer in answers
        for _, _, _, name, configs in answer.resources
        for setting, value, *_ in configs
        if (setting, value) == ("flush.messages", "1")
    )


def newest_logs(folder: Path) -> list[Path]:
    """Return the write-ahead log of each RocksDB below a folder, the newest where there are several."""
    newest: Mapping[Path, Path] = {log.parent: log for log in sorted(folder.rglob("[0-9]*.log"))}
    return list(newest.values())


@kind("store-swapped")
def store_swapped(ring: Ring) -> Blow:
    """Kill a worker and give it an older copy of its store, or the store of another worker."""
    cluster = ring.cluster
    victim = ring.victim()
    victim.wanted = False
    unacked = kill_worker(ring, victim)
    store, kept = cluster.data(victim.name) / "workers", cluster.folder / "kept-store"
    shutil.copytree(store, kept)
    others = [worker for worker in cluster.workers if worker is not victim]
    if others and cluster.random.random() < 0.5:
        other = cluster.random.choice(others)
        other.wanted = False
        other.kill()
        theirs = cluster.data(other.name) / "workers"
        shutil.rmtree(store)
        shutil.copytree(theirs / other.name, store / victim.name)
        shutil.rmtree(theirs)
        shutil.copytree(kept / victim.name, theirs / other.name)
        note, kills = f"{victim.name} and {other.name} have each other's", 2
        other.wanted = True
    else:
        victim.wanted = True
        eventually(lambda: victim.partitions, "the worker counts on", 180)
        ring.pause(1.0, 2.0)
        victim.wanted = False
        unacked += kill_worker(ring, victim)
        shutil.rmtree(store)
        shutil.copytree(kept, store)
        note, kills = f"{victim.name} has an older one", 2
    shutil.rmtree(kept)
    victim.wanted = True
    cluster.settled()
    return Blow("store-swapped", kills, unacked, "messages", note)


@kind("spool-held")
def spool_held(ring: Ring) -> Blow:
    """Kill the gateway with a full spool, and let a backup hold the file while the next one starts."""
    cluster, gateway = ring.cluster, ring.cluster.gateway
    spooled = kill_with_full_spool(ring)
    with ExitStack() as held:
        for path in spools(cluster.data("gateway") / "gateway"):
            backup = held.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
            backup.execute("PRAGMA locking_mode=EXCLUSIVE")
            backup.execute("BEGIN EXCLUSIVE")
        answered = ring.fleet.truth.http["200"]
        gateway.wanted = True
        eventually(lambda: ring.fleet.truth.http["200"] > answered + 50, "it takes data beside what is held", 180)
    flowing(ring)
    return Blow("spool-held", 1, spooled, "spooled messages")


@kind("two-gateways")
def two_gateways(ring: Ring) -> Blow:
    """Start a second gateway on the same volume, and kill both with a full spool: each may take what the first left."""
    cluster = ring.cluster
    second = cluster.second_gateway()
    eventually(lambda: second.ready, "the second gateway is ready", 180)
    cluster.signal_broker(signal.SIGSTOP)
    try:
        spooled = eventually(ring.spooled, "the spool takes over")
        beside = sorted((cluster.gateway, second), key=lambda _: cluster.random.random())
        for gateway in beside:
            gateway.kill()
    finally:
        cluster.signal_broker(signal.SIGCONT)
    answering(ring)
    eventually(lambda: second.ready, "the second gateway is back", 180)
    flowing(ring)
    note = f"{beside[0].name} ended first, the second stopped with {second.stop()}"
    cluster.dismiss(second)
    return Blow("two-gateways", 2, spooled, "spooled messages", note)


MANY, AT_ONCE = 6_000, 50
"""Requests of a session in one hour, of which the state remembers about the newest 4,096; and those of one message."""


@kind("eviction")
def eviction(ring: Ring) -> Blow:
    """Give a session-hour more requests than it remembers, and send all of them again; kill a worker during both."""
    cluster = ring.cluster
    session = f"many-{len(ring.many) + 1}"
    ring.many[session] = MANY
    unacked, hour = 0, time.time_ns() // HOUR_NS - 2
    for _ in range(2):
        asyncio.run(_append_many(cluster.kafka, cluster.topics, session, hour))
        unacked += kill_worker(ring, ring.victim())
        cluster.settled()
    return Blow("eviction", 2, unacked, "messages", session)


async def _append_many(kafka: KafkaSettings, topics: Topics, session: str, hour: int) -> None:
    """Write the session's usage in the order of its times, each time the same."""
    key = keys.join("codex-7f3a", session)
    head = {"connection_id": "codex-7f3a", "client": "codex", "provider": "openai", "session_id": session}
    async with opened(AIOKafkaProducer(**kafka.client())) as producer:
        for first in range(0, MANY, AT_ONCE):
            events = [
                {
                    "event_id": f"{number:016x}", "occurred_at": hour * HOUR_NS + number, "model": "gpt-5.1-codex",
                    "input_uncached": number, "cache_read": 0, "cache_write_5m": 0, "cache_write_1h": 0, "output": 1,
                    "reasoning": 0, "tool": 0,
                }
                for number in range(first, first + AT_ONCE)
            ]  # fmt: skip
            value = orjson.dumps({**head, "attribution": {}, "events": events})
            await producer.send_and_wait(
                topics.usage.name, value, key=key, partition=partition_of(key, topics.partitions)
            )


OTHER_BOOK = """
[[price]]
provider = "openai"
model = "a-model-nobody-uses"
input = "1.00"
output = "1.00"
"""
"""Another book with the same prices, so that every cost is known although nobody knows by which book."""


@kind("price-book")
def price_book(ring: Ring) -> Blow:
    """Restart the workers one by one with another price book, while one is stopped; it wakes up with the old one."""
    cluster = ring.cluster
    victim = ring.victim()
    prices = cluster.folder / "prices.toml"
    prices.write_text(OTHER_BOOK)
    other = "TALLYSTREAM_PRICES" not in victim.environment

    def restart(worker: Part) -> None:
        if other:
            worker.environment["TALLYSTREAM_PRICES"] = str(prices)
        else:
            worker.environment.pop("TALLYSTREAM_PRICES", None)
        eventually(lambda: worker.ready, f"{worker.name} is ready", 180)
        exits = len(worker.exits)
        worker.signal(signal.SIGTERM)
        eventually(lambda: len(worker.exits) > exits, f"{worker.name} ends", 180)

    own = victim.partitions
    unacked = behind(cluster.witness.usage_ends(), cluster.witness.snapshot().positions)
    with stopped(victim):
        for worker in cluster.workers:
            if worker is not victim:
                restart(worker)
                eventually(lambda worker=worker: worker.partitions, "it folds again", 180)  # type: ignore[misc]
        eventually(lambda: not set(own) & set(worker_partitions(ring, victim)), "others fold what it had", 180)
        ring.pause(0.5, 2.0)
    cluster.settled()
    restart(victim)
    cluster.settled()
    return Blow(
        "price-book", 0, unacked, "messages", f"{victim.name} slept; {'another' if other else 'the first'} book"
    )


@kind("disk-start")
def disk_start(ring: Ring) -> Blow:
    """Kill the gateway and a worker, and fill the disks of both until they have been started on them."""
    cluster, gateway = ring.cluster, ring.cluster.gateway
    victim = ring.victim()
    victim.wanted = gateway.wanted = False
    unacked = kill_worker(ring, victim)
    gateway.kill()
    with filled(cluster.data("gateway")), filled(cluster.data(victim.name)):
        starts = victim.starts
        victim.wanted = gateway.wanted = True
        answered = ring.fleet.truth.http["200"]
        eventually(lambda: ring.fleet.truth.http["200"] > answered + 20, "the gateway goes on with Kafka alone", 180)
        eventually(lambda: victim.starts > starts + 1 or victim.partitions, "the worker was started", 180)
        ended = len(victim.exits)
    flowing(ring)
    return Blow("disk-start", 2, unacked, "messages", f"{victim.name} ended {ended} times")


JUMPS = (timedelta(days=5), timedelta(hours=-12), timedelta(0))
"""How far the broker's clock is ahead, in this order. All events of the fleets stay within the lateness (7 days) and
within a day of the future, so that everything must be counted."""


@kind("broker-clock")
def broker_clock(ring: Ring) -> Blow:
    """Let the broker's clock jump ahead, back beyond the right time, and to the right time, under load."""
    cluster = ring.cluster
    assert cluster.clock is not None
    appended = 0
    for ahead in JUMPS:
        before = sum(cluster.witness.usage_ends().values())
        cluster.clock.set(ahead)
        eventually(lambda ahead=ahead: jumped(cluster.kafka, cluster.topics.usage.name, ahead), f"it is {ahead} ahead")  # type: ignore[misc]
        ring.pause(1.0, 3.0)
        if ahead:
            appended += sum(cluster.witness.usage_ends().values()) - before
        cluster.settled()
    flowing(ring)
    return Blow("broker-clock", 0, appended, "messages appended at a wrong time")


def jumped(kafka: KafkaSettings, topic: str, ahead: timedelta) -> bool:
    """Tell whether the newest message of a topic was appended by a clock that is so far ahead."""
    newest = asyncio.run(newest_ms(kafka, topic))
    return newest is not None and abs(newest / 1000 - time.time() - ahead.total_seconds()) < 60


async def newest_ms(kafka: KafkaSettings, topic: str) -> int | None:
    """Return the append time of one partition's last message."""
    async with opened(AIOKafkaConsumer(**kafka.client(), group_id=None)) as consumer:
        at = TopicPartition(topic, 0)
        consumer.assign([at])
        end = (await consumer.end_offsets([at]))[at]
        if not end:
            return None
        consumer.seek(at, end - 1)
        found = await consumer.getmany(at, timeout_ms=1000)
        return found[at][-1].timestamp if found else None
