"""Faults of the surroundings: disks, the network, a changelog that refuses rows, unreadable records from other
programs.
"""

from __future__ import annotations

import asyncio
import signal
import time

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tests.chaos.cluster import Cluster
from tests.chaos.disks import filled
from tests.chaos.faults import Blow, Ring, flowing, kind
from tests.chaos.witness import behind
from tests.support.waiting import eventually

from tallystream.schemas import topic_names


@kind("latency")
def latency(ring: Ring) -> Blow:
    """Delay all traffic of Kafka and the gateway by 100 to 500 ms, for 8 s."""
    toxiproxy = ring.cluster.toxiproxy
    assert toxiproxy is not None
    most, until = 0, time.monotonic() + 8
    for name in ("kafka", "gateway"):
        for stream in ("upstream", "downstream"):
            toxiproxy.poison(name, "latency", stream, latency=300, jitter=200)
    while time.monotonic() < until:
        most = max(most, ring.spooled())
        time.sleep(0.1)
    toxiproxy.cure()
    flowing(ring)
    return Blow("latency", 0, most, "spooled messages")


@kind("resets")
def resets(ring: Ring) -> Blow:
    """Reset all connections to Kafka and the gateway repeatedly for 5 s."""
    toxiproxy = ring.cluster.toxiproxy
    assert toxiproxy is not None
    most = 0
    for _ in range(5):
        for name in ("kafka", "gateway"):
            toxiproxy.poison(name, "reset_peer", "downstream", timeout=0)
        ring.pause(0.2, 0.8)
        most = max(most, ring.spooled())
        toxiproxy.cure()
        ring.pause(0.2, 0.6)
    flowing(ring)
    return Blow("resets", 0, most, "spooled messages")


@kind("disk-spool")
def disk_spool(ring: Ring) -> Blow:
    """Fill the spool's disk while Kafka is paused: requests that cannot be kept must not be acknowledged."""
    cluster = ring.cluster
    with filled(cluster.data("gateway")):
        cluster.signal_broker(signal.SIGSTOP)
        try:
            refused = ring.fleet.truth.http["503"]
            eventually(lambda: ring.fleet.truth.http["503"] > refused + 5, "requests are refused", 180)
            count = ring.fleet.truth.http["503"] - refused
        finally:
            cluster.signal_broker(signal.SIGCONT)
    flowing(ring)
    return Blow("disk-spool", 0, count, "requests refused")


@kind("disk-store")
def disk_store(ring: Ring) -> Blow:
    """Fill the disk of a worker's store: the worker exits, and continues once there is room."""
    cluster, witness = ring.cluster, ring.cluster.witness
    victim = ring.victim()
    exits = len(victim.exits)
    with filled(cluster.data(victim.name)):
        eventually(lambda: len(victim.exits) > exits, "the worker ends", 240)
        unacked = behind(witness.usage_ends(), witness.snapshot().positions)
    cluster.settled()
    return Blow("disk-store", 0, unacked, "messages", f"{victim.name} ended with {victim.exits[exits]}")


@kind("changelog-refuses")
def changelog_refuses(ring: Ring) -> Blow:
    """Make Kafka refuse the changelog's rows: public rows are written, but nothing may count beyond the changelog."""
    cluster, witness = ring.cluster, ring.cluster.witness
    topic = cluster.topics.session_hours_changelog
    before = sum(len(w.exits) for w in cluster.workers)
    asyncio.run(_alter(cluster, topic.name, {**topic.config, "max.message.bytes": "10"}))
    try:
        eventually(lambda: sum(len(w.exits) for w in cluster.workers) > before, "a worker ends", 180)
        unacked = behind(witness.usage_ends(), witness.snapshot().positions)
    finally:
        asyncio.run(_alter(cluster, topic.name, dict(topic.config)))
    cluster.settled()
    ended = sum(len(w.exits) for w in cluster.workers) - before
    return Blow("changelog-refuses", 0, unacked, "messages", f"{ended} workers ended")


async def _alter(cluster: Cluster, topic: str, config: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(**cluster.kafka.client())
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=config)])
    finally:
        await admin.close()


@kind("poison")
def poison(ring: Ring) -> Blow:
    """Write unreadable records to each topic."""
    cluster = ring.cluster
    before = sum(len(part.exits) for part in cluster.parts)
    ring.poisoned += asyncio.run(_poison(cluster))
    ring.pause(1.0, 2.0)
    cluster.settled()
    cluster.all_ready()
    ended = sum(len(part.exits) for part in cluster.parts) - before
    return Blow("poison", 0, len(ring.poisoned), "dead letters expected", f"{ended} parts ended and were replaced")


async def _poison(cluster: Cluster) -> list[str]:
    topics = cluster.topics
    producer = AIOKafkaProducer(**cluster.kafka.client(), enable_idempotence=True)
    await producer.start()
    found = []
    try:
        for value in (b"{not json", b"\xff\xfe", None, b"[]", b'{"connection_id":"x"}'):
            for p in range(topics.partitions):
                record = await producer.send_and_wait(topics.usage.name, value, key=b"poison", partition=p)
                found.append(f"{topic_names.USAGE}|{p}|{record.offset}|0")
        existing = await producer.client.fetch_all_metadata()
        for spec in topics.all():
            if spec.name != topics.usage.name and spec.name in existing.topics():
                for key, value in ((b"poison", b"\xffgarbage"), (b"", b"{}")):
                    record = await producer.send_and_wait(spec.name, value, key=key, partition=0)
                    if spec.name == topics.calls.name:
                        found.append(f"{topic_names.CALLS}|0|{record.offset}|0")
    finally:
        await producer.stop()
    return found
