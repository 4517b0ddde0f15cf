"""Faults of a cluster of three brokers: leaders that are killed, that hang, and that restart in turn."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Blow, Ring, flowing, kind
from tests.chaos.witness import behind
from tests.support.waiting import eventually

from tallystream.streams.embedded.broker import EmbeddedKafka


def described(cluster: Cluster) -> list[dict[str, Any]]:
    """Return the partitions of the topics with usage and rows; empty if no broker answers."""
    names = [spec.name for spec in (
        cluster.topics.usage, cluster.topics.session_hours_changelog, cluster.topics.session_hour_rows,
        cluster.topics.hour_rows,
    )]  # fmt: skip

    async def ask() -> list[dict[str, Any]]:
        running = [broker.bootstrap for broker in cluster.brokers if broker.poll() is None]
        admin = AIOKafkaAdminClient(bootstrap_servers=",".join(running), request_timeout_ms=3000)
        try:
            async with asyncio.timeout(5):
                await admin.start()
                topics = await admin.describe_topics(names)
        except (KafkaError, OSError, TimeoutError):
            return []
        finally:
            await admin.close()
        return [partition for topic in topics for partition in topic["partitions"]]

    return asyncio.run(ask())


def leader(cluster: Cluster) -> EmbeddedKafka:
    """Return the broker that leads most partitions."""
    found = eventually(lambda: described(cluster), "Kafka describes its topics")
    node, _ = Counter(int(p["leader"]) for p in found).most_common(1)[0]
    return cluster.brokers[node - 1]


def led_without(cluster: Cluster, broker: EmbeddedKafka) -> Callable[[], bool]:
    """Return a check that other brokers lead all partitions."""
    node = cluster.brokers.index(broker) + 1

    def led() -> bool:
        found = described(cluster)
        return bool(found) and all(p["leader"] not in (-1, node) for p in found)

    return led


def in_sync(cluster: Cluster) -> bool:
    """Tell whether all replicas of all partitions are in sync."""
    found = described(cluster)
    return bool(found) and all(len(p["isr"]) == len(p["replicas"]) == 3 for p in found)


def whole(ring: Ring) -> None:
    """Wait until the cluster has recovered."""
    eventually(lambda: in_sync(ring.cluster), "all replicas are in sync", 180)
    flowing(ring)


def waiting(ring: Ring) -> int:
    """Return the number of requests without an answer and spooled messages."""
    return ring.fleet.truth.in_flight + ring.spooled()


def counted_on(ring: Ring) -> None:
    """Wait until everything acknowledged so far has been counted, for which two brokers are enough."""
    witness = ring.cluster.witness
    ends = witness.usage_ends()
    eventually(lambda: behind(ends, witness.positions()) == 0, "two brokers are enough")
    witness.snapshot()


def silenced(ring: Ring, victim: EmbeddedKafka) -> int:
    """SIGSTOP a broker at a random moment; return the number of waiting requests and messages once there are any."""
    ring.cluster.signal_broker(signal.SIGSTOP, victim)
    return eventually(lambda: waiting(ring), "something waits for the leader")


@kind("leader")
def leader_dies(ring: Ring) -> Blow:
    """Kill the broker that leads most partitions during requests; the other two continue."""
    cluster = ring.cluster
    victim = leader(cluster)
    unacked = silenced(ring, victim)
    cluster.kill_broker(victim)
    since = time.monotonic()
    eventually(led_without(cluster, victim), "others lead")
    led = time.monotonic() - since
    counted_on(ring)
    ring.pause(0.0, 2.0)
    cluster.start_broker(victim)
    whole(ring)
    return Blow("leader", 1, unacked, "requests and spooled messages", f"others led after {led:.1f} s")


@kind("leader-zombie")
def leader_hangs(ring: Ring) -> Blow:
    """SIGSTOP the leading broker until others lead and have new records, then SIGCONT: its own log must be truncated"""
    cluster = ring.cluster
    victim = leader(cluster)
    unacked = silenced(ring, victim)
    try:
        eventually(led_without(cluster, victim), "others lead")
        taken = sum(cluster.witness.usage_ends().values())
        eventually(lambda: sum(cluster.witness.usage_ends().values()) > taken, "others take more")
        ring.pause(0.0, 2.0)
    finally:
        cluster.signal_broker(signal.SIGCONT, victim)
    whole(ring)
    return Blow("leader-zombie", 0, unacked, "requests and spooled messages")


@kind("two-leaders")
def two_die(ring: Ring) -> Blow:
    """Kill the leader, then its successor: one in-sync replica is too few. The first one killed returns first"""
    cluster = ring.cluster
    first = leader(cluster)
    unacked = silenced(ring, first)
    cluster.kill_broker(first)
    eventually(led_without(cluster, first), "others lead")
    counted_on(ring)
    second = leader(cluster)
    spooled = ring.spooled()
    cluster.kill_broker(second)
    eventually(lambda: ring.spooled() > spooled, "one replica is not enough: the spool takes over")
    ring.pause(0.2, 2.0)
    unacked += waiting(ring)
    cluster.start_broker(first)
    ring.pause(0.0, 2.0)
    cluster.start_broker(second)
    whole(ring)
    return Blow("two-leaders", 2, unacked, "requests and spooled messages")


@kind("broker-rolling")
def rolling(ring: Ring) -> Blow:
    """SIGTERM each broker in turn, start it again when the others lead, and wait until all replicas are in sync"""
    cluster = ring.cluster
    most = 0
    for victim in cluster.brokers:
        cluster.signal_broker(signal.SIGTERM, victim)
        eventually(lambda victim=victim: victim.poll() is not None, "it ends")  # type: ignore[misc]
        counted_on(ring)
        most = max(most, waiting(ring))
        cluster.start_broker(victim)
        whole(ring)
    return Blow("broker-rolling", 0, most, "requests and spooled messages")
