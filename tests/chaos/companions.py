"""Faults of exporter, poller and sink, whose Kafka clients must not end in silence."""

from __future__ import annotations

import signal
from contextlib import ExitStack

from tests.chaos.disks import filled
from tests.chaos.faults import Blow, Ring, flowing, kind
from tests.support.waiting import eventually


@kind("companions")
def companions(ring: Ring) -> Blow:
    """Kill or stop exporter, poller and sink while the broker is killed, stopped or goes on; each is ready again."""
    cluster, random = ring.cluster, ring.cluster.random
    broker = random.choice(("on", "killed", "stopped"))
    before = sum(cluster.witness.usage_ends().values())
    kills, done = 0, []
    stopped = []
    if broker == "stopped":
        cluster.signal_broker(signal.SIGSTOP)
    for part in cluster.companions:
        if random.random() < 0.5:
            part.kill()
            kills += 1
            done.append(f"{part.name} killed")
        else:
            part.signal(signal.SIGSTOP)
            stopped.append(part)
            done.append(f"{part.name} stopped")
        ring.pause(0.0, 1.0)
    if broker == "killed":
        cluster.kill_broker()
        kills += len(cluster.brokers)
    ring.pause(1.0, 12.0)
    if broker == "killed":
        cluster.start_broker()
    if broker == "stopped":
        cluster.signal_broker(signal.SIGCONT)
    ring.pause(0.0, 2.0)
    for part in stopped:
        part.signal(signal.SIGCONT)
    flowing(ring)
    cluster.all_ready()
    meanwhile = sum(cluster.witness.usage_ends().values()) - before
    return Blow("companions", kills, meanwhile, "messages meanwhile", f"the broker {broker}; {', '.join(done)}")


@kind("disk-companions")
def full_companions(ring: Ring) -> Blow:
    """Fill the disks of the sink's copy and the exporter's counters: each names its disk, and continues with room."""
    cluster = ring.cluster
    victims = [part for part in cluster.companions if part.name in ("exporter", "sink")]
    before = sum(cluster.witness.usage_ends().values())
    exits = {part.name: len(part.exits) for part in victims}
    with ExitStack() as disks:
        for part in victims:
            disks.enter_context(filled(cluster.data(part.name)))
        for part in victims:
            eventually(lambda part=part: len(part.exits) > exits[part.name], f"{part.name} ends", 240)  # type: ignore[misc]
    cluster.all_ready()
    meanwhile = sum(cluster.witness.usage_ends().values()) - before
    ended = ", ".join(f"{part.name} ended with {part.exits[exits[part.name]]}" for part in victims)
    return Blow("disk-companions", 0, meanwhile, "messages meanwhile", ended)
