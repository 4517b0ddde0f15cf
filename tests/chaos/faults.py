"""The faults, one function for each kind. Each injects a fault into a running cluster and returns what was
unacknowledged.

A process is killed only when it has unacknowledged work: it is stopped (SIGSTOP, at a random moment) until work waits
for it, and then killed. Killing an idle process would not test anything.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.chaos.cluster import Cluster
from tests.chaos.load import Fleet
from tests.chaos.parts import Part
from tests.chaos.witness import behind
from tests.support.waiting import eventually

SPOOLED = "tallystream_gateway_spool_messages"


@dataclass
class Blow:
    """One injected fault. `unacked` is work that had to be repeated, `kills` the number of SIGKILLs."""

    kind: str
    kills: int
    unacked: int
    unit: str
    note: str = ""
    at: float = field(default_factory=time.time)
    """Seconds since the epoch; for a killed worker the time of its death."""


@dataclass
class Ring:
    """What faults act on."""

    cluster: Cluster
    fleet: Fleet
    poisoned: list[str] = field(default_factory=list)
    """The sources of the dead letters that are expected for unreadable messages on `usage` and `calls`."""
    many: dict[str, int] = field(default_factory=dict)
    """Sessions with more requests in an hour than it remembers ids of, and how many."""
    moves: int = 0
    """How many other deployments the gateway has served."""
    wrong: list[str] = field(default_factory=list)
    """What the faults themselves have found wrong, in deployments that are gone when the run is judged."""

    def pause(self, least: float, most: float) -> None:
        time.sleep(self.cluster.random.uniform(least, most))

    def victim(self) -> Part:
        """Return a worker that folds something."""
        found = eventually(
            lambda: [w for w in self.cluster.workers if w.alive and w.partitions], "a worker that folds", 180
        )
        return self.cluster.random.choice(found)

    def spooled(self) -> int:
        return int(self.cluster.gateway.metric(SPOOLED))


Fault = Callable[[Ring], Blow]
KINDS: dict[str, Fault] = {}


def kind(name: str) -> Callable[[Fault], Fault]:
    def add(fault: Fault) -> Fault:
        KINDS[name] = fault
        return fault

    return add


@contextlib.contextmanager
def stopped(part: Part) -> Iterator[None]:
    """SIGSTOP for the duration of the block, then SIGCONT unless it was killed meanwhile."""
    part.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        if part.alive:
            part.signal(signal.SIGCONT)


def kill_worker(ring: Ring, worker: Part) -> int:
    """Kill a worker that has work; return the number of messages that it had not acknowledged."""
    witness = ring.cluster.witness
    worker.signal(signal.SIGSTOP)
    own = worker_partitions(ring, worker)
    before = dict(witness.usage_ends())

    def waits() -> bool:
        nonlocal before
        before = dict(witness.usage_ends())
        positions = witness.positions()
        return any(before[p] > positions.get(p, 0) for p in own)

    eventually(waits, "the worker has something to do", 180)
    worker.kill()
    taken = witness.snapshot()
    return behind({p: before[p] for p in own}, taken.positions)


def worker_partitions(ring: Ring, worker: Part) -> list[int]:
    """Return the partitions of a stopped worker, which are those that no other worker folds."""
    others = {p for w in ring.cluster.workers if w is not worker and w.alive for p in w.partitions}
    return [p for p in range(ring.cluster.topics.partitions) if p not in others]


def kill_gateway(ring: Ring) -> int:
    """Kill the gateway while requests wait for it; return their number."""
    gateway = ring.cluster.gateway
    gateway.signal(signal.SIGSTOP)
    eventually(lambda: ring.fleet.truth.in_flight > 0, "requests are under way", 180)
    waiting = ring.fleet.truth.in_flight
    gateway.kill()
    return waiting


def answering(ring: Ring) -> None:
    eventually(lambda: ring.cluster.gateway.ready, "the gateway answers again", 180)


@kind("worker")
def worker(ring: Ring) -> Blow:
    """Kill a worker."""
    victim = ring.victim()
    unacked = kill_worker(ring, victim)
    at = time.time()
    ring.cluster.settled()
    return Blow("worker", 1, unacked, "messages", victim.name, at)


@kind("workers")
def workers(ring: Ring) -> Blow:
    """Kill all workers at once, so that nothing is folded until one is back."""
    unacked = 0
    victims = list(ring.cluster.workers)
    for victim in victims:
        victim.signal(signal.SIGSTOP)
    before = ring.cluster.witness.usage_ends()

    def waits() -> bool:
        nonlocal before
        before = ring.cluster.witness.usage_ends()
        return behind(before, ring.cluster.witness.positions()) > 0

    eventually(waits, "the workers have something to do", 180)
    for victim in victims:
        victim.kill()
    at = time.time()
    unacked = behind(before, ring.cluster.witness.snapshot().positions)
    ring.cluster.settled()
    return Blow("workers", len(victims), unacked, "messages", "", at)


@kind("store")
def store(ring: Ring) -> Blow:
    """Kill a worker and delete its data dir, so that it has to recover from the changelog alone."""
    victim = ring.victim()
    victim.wanted = False
    unacked = kill_worker(ring, victim)
    at = time.time()
    shutil.rmtree(ring.cluster.data(victim.name) / "workers", ignore_errors=True)
    victim.wanted = True
    ring.cluster.settled()
    return Blow("store", 1, unacked, "messages", f"{victim.name} without its data dir", at)


@kind("join")
def join(ring: Ring) -> Blow:
    """Let a third worker join and leave, or be killed."""
    cluster = ring.cluster
    third = cluster.worker(f"guest-{len(cluster.parts)}", static=False)
    eventually(lambda: third.partitions, "the third worker folds", 180)
    ring.pause(0.3, 1.5)
    killed = cluster.random.random() < 0.5
    unacked, at = 0, time.time()
    if killed:
        third.wanted = False
        unacked = kill_worker(ring, third)
        at = time.time()
        note = "joined, was killed"
    else:
        note = f"joined, left with {third.stop()}"
    cluster.settled()
    cluster.dismiss(third)
    return Blow("join", int(killed), unacked, "messages", note, at)


@kind("zombie")
def zombie(ring: Ring) -> Blow:
    """SIGSTOP a worker until others have counted beyond its position, then SIGCONT."""
    cluster, witness = ring.cluster, ring.cluster.witness
    victim = ring.victim()
    own = eventually(lambda: victim.partitions, "the worker folds")
    victim.signal(signal.SIGSTOP)
    since = time.monotonic()
    frozen = witness.positions()

    def overtaken_by_others() -> bool:
        others = {p for one in cluster.workers if one is not victim and one.alive for p in one.partitions}
        now = witness.positions()
        return others >= set(own) and any(now[p] > frozen[p] for p in own)

    eventually(overtaken_by_others, "others count on from where the stopped worker was")
    ring.pause(0.2, 1.5)
    now = witness.snapshot().positions
    counted = sum(now[p] - frozen[p] for p in own)
    exits = len(victim.exits)
    victim.signal(signal.SIGCONT)
    cluster.settled()
    after = "it ended" if len(victim.exits) > exits else "it rejoined"
    return Blow("zombie", 0, counted, "messages", f"stopped for {time.monotonic() - since:.0f} s, {after}")


@kind("gateway")
def gateway(ring: Ring) -> Blow:
    """Kill the gateway during requests; every other time while Kafka is paused and acknowledges nothing."""
    silent = ring.cluster.random.random() < 0.5
    if silent:
        ring.cluster.signal_broker(signal.SIGSTOP)
        ring.pause(0.02, 0.4)
    try:
        unacked = kill_gateway(ring)
    finally:
        if silent:
            ring.cluster.signal_broker(signal.SIGCONT)
    answering(ring)
    return Blow("gateway", 1, unacked, "requests", "while Kafka was silent" if silent else "")


@kind("broker")
def broker(ring: Ring) -> Blow:
    """Kill the broker and start it again after a while."""
    cluster = ring.cluster
    before = ring.spooled()
    cluster.kill_broker()
    eventually(lambda: ring.spooled() > before, "the spool takes over")
    ring.pause(0.2, 2.0)
    unacked = ring.spooled() - before
    cluster.start_broker()
    flowing(ring)
    return Blow("broker", len(cluster.brokers), unacked, "spooled messages")


def kill_with_full_spool(ring: Ring) -> int:
    """Kill the gateway while Kafka is silent and its spool has messages, and keep it down; return how many it has."""
    cluster, gateway = ring.cluster, ring.cluster.gateway
    cluster.signal_broker(signal.SIGSTOP)
    try:
        spooled = eventually(ring.spooled, "the spool takes over")
        gateway.wanted = False
        gateway.kill()
    finally:
        cluster.signal_broker(signal.SIGCONT)
    return spooled


def flowing(ring: Ring) -> None:
    """Wait until the spool is empty and all partitions are folded."""
    eventually(lambda: ring.cluster.gateway.ready and ring.spooled() == 0, "the spool is empty", 480)
    ring.cluster.settled()


@kind("broker-pause")
def broker_pause(ring: Ring) -> Blow:
    """SIGSTOP the broker for 20 s."""
    return _pause_broker(ring, "broker-pause", 20.0)


def _pause_broker(ring: Ring, name: str, seconds: float) -> Blow:
    cluster = ring.cluster
    cluster.signal_broker(signal.SIGSTOP)
    since = time.monotonic()
    try:
        eventually(lambda: ring.spooled() > 0, "the spool takes over")
        eventually(lambda: time.monotonic() - since > seconds, "the time is over", seconds + 5)
        unacked = ring.spooled()
    finally:
        cluster.signal_broker(signal.SIGCONT)
    flowing(ring)
    return Blow(name, 0, unacked, "spooled messages", f"{seconds:.0f} s")


@kind("broker-slow")
def broker_slow(ring: Ring) -> Blow:
    """Stop and continue the broker in bursts."""
    most = 0
    for _ in range(20):
        ring.cluster.signal_broker(signal.SIGSTOP)
        ring.pause(0.1, 0.6)
        ring.cluster.signal_broker(signal.SIGCONT)
        most = max(most, ring.spooled())
        ring.pause(0.05, 0.3)
    flowing(ring)
    return Blow("broker-slow", 0, most, "spooled messages", "20 bursts")


@kind("everything")
def everything(ring: Ring) -> Blow:
    """Kill the broker, a worker and the gateway within a second, in any order."""
    cluster = ring.cluster
    unacked = 0
    victim = ring.victim()
    order = ["broker", "worker", "gateway"]
    cluster.random.shuffle(order)
    positions, ends = cluster.witness.positions(), cluster.witness.usage_ends()
    for name in order:
        if name == "broker":
            cluster.kill_broker()
        elif name == "worker":
            victim.kill()
        else:
            unacked += kill_gateway(ring)
        ring.pause(0.0, 0.3)
    unacked += behind(ends, positions)
    cluster.start_broker()
    answering(ring)
    flowing(ring)
    return Blow("everything", 2 + len(cluster.brokers), unacked, "requests and messages", " ".join(order))


@kind("sigterm")
def sigterm(ring: Ring) -> Blow:
    """SIGTERM each process in turn, the broker last; each must exit with 0 and is started again."""
    cluster = ring.cluster
    for part in (ring.victim(), cluster.gateway, *cluster.companions):
        exits = len(part.exits)
        part.signal(signal.SIGTERM)
        eventually(lambda part=part, exits=exits: len(part.exits) > exits, f"{part.name} ends")  # type: ignore[misc]
        assert part.exits[-1] == 0, f"{part.name} ended with {part.exits[-1]}; see {part.log}"
    answering(ring)
    cluster.settled()
    cluster.signal_broker(signal.SIGTERM)
    for broker in cluster.brokers:
        eventually(lambda broker=broker: broker.poll() is not None, "the broker ends")  # type: ignore[misc]
    unacked = eventually(ring.spooled, "the spool takes over")
    cluster.start_broker()
    flowing(ring)
    cluster.all_ready()
    ended = len(cluster.companions) + 3
    return Blow("sigterm", 0, unacked, "spooled messages", f"{ended} parts ended as they should")
