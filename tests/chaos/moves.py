"""A gateway that moves to another prefix or cluster with a full spool, and comes back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.cluster import PREFIX, Cluster
from tests.chaos.faults import SPOOLED, Blow, Ring, flowing, kill_with_full_spool, kind
from tests.chaos.load import Fleet, Fleetwise
from tests.chaos.parts import Part
from tests.support.open_kafka import OpenKafka
from tests.support.waiting import eventually

from tallystream.simulator import compare
from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.process import tcp_ports

ANSWERED = 30
"""Requests that the other deployment answers before and after its spool fills."""


class Elsewhere:
    """Another deployment, whose gateway has the data dir of the first one and a port of its own."""

    def __init__(self, cluster: Cluster, number: int, *, prefix: str, own: EmbeddedKafka | None) -> None:
        self._cluster = cluster
        self._number = number
        self._environment = {"TALLYSTREAM_PREFIX": prefix}
        self._own = own
        self._kafka = own.bootstrap if own is not None else cluster.bootstrap
        self._port = tcp_ports.pick()
        self.fleet: Fleet

    def cli(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command on this deployment."""
        return self._cluster.cli(*arguments, codes=codes, environment=self._environment, kafka=self._kafka)

    def load(self) -> None:
        """Connect a fleet of its own, and start it."""
        ingest_id = json.loads(self.cli("connections", "create", "codex", "--json"))["ingest_id"]
        how = Fleetwise(30.0, 1000 + self._number, agents=5)
        self.fleet = Fleet(f"http://127.0.0.1:{self._port}", ingest_id, how)
        self.fleet.start()

    @contextmanager
    def gateway(self) -> Iterator[Part]:
        """Run its gateway on the data dir of the first deployment's, and stop it at the end."""
        part = self._start("gateway", "gateway", "--port", str(self._port), data=True)
        try:
            eventually(lambda: part.ready, part.why_not_ready, 180)
            yield part
        finally:
            self._end(part)

    def wrong(self) -> list[str]:
        """Count everything; return what is lost or counted twice, and what is not this deployment's."""
        with self.gateway() as gateway:
            worker = self._start("worker", "worker", "--instance", "elsewhere", data=False)
            try:
                ops = f"http://127.0.0.1:{gateway.ops_port}"
                # 4: everything of this deployment is counted, and the killed gateway of the first has left a spool.
                self.cli("wait", "--caught-up", "--timeout", "120", "--gateway-ops", ops, codes=(0, 4))
                rows = json.loads(self.cli("cost", "session-hours", "--json"))["rows"]
            finally:
                self._end(worker)
        return [f"elsewhere: {one}" for one in compare(self.fleet.truth, rows, alone=True)]

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Pause its Kafka."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._own is not None:
            os.kill(self._own.pid, number)
        else:
            self._cluster.signal_broker(number)

    def _start(self, name: str, *arguments: str, data: bool) -> Part:
        return self._cluster.part(
            f"{name}-elsewhere-{self._number}", *arguments, environment=self._environment, kafka=self._kafka,
            data=self._cluster.data("gateway") if data else None,
        )  # fmt: skip

    def _end(self, part: Part) -> None:
        part.stop()
        self._cluster.dismiss(part)


@contextmanager
def elsewhere(ring: Ring) -> Iterator[tuple[Elsewhere, str]]:
    """Provide another deployment, and say in what it differs."""
    cluster = ring.cluster
    ring.moves += 1
    what = ("prefix", "cluster", "prefix and cluster")[ring.moves % 3]
    prefix = f"{PREFIX}-{ring.moves}" if "prefix" in what else PREFIX
    own = OpenKafka(cluster.folder / f"kafka-elsewhere-{ring.moves}") if "cluster" in what else None
    try:
        if own is not None:
            own.start()
        yield Elsewhere(cluster, ring.moves, prefix=prefix, own=own), what
    finally:
        if own is not None:
            own.stop()


@kind("moved")
def moved(ring: Ring) -> Blow:
    """Kill the gateway with a full spool, let it fill one for another prefix or cluster in its place, and go back."""
    gateway = ring.cluster.gateway
    with elsewhere(ring) as (there, what):
        there.load()
        spooled = kill_with_full_spool(ring)
        answers = there.fleet.truth.http
        with there.gateway() as moved_gateway:
            eventually(lambda: answers["200"] > ANSWERED, "the other deployment gets data", 180)
            with there.silent():
                before = answers["200"]
                eventually(lambda: answers["200"] > before + ANSWERED, "its spool takes over", 180)
                spooled_there = int(moved_gateway.metric(SPOOLED))
                moved_gateway.wanted = False
                moved_gateway.kill()
        gateway.wanted = True
        flowing(ring)
        gateway.wanted = False
        gateway.kill()
        before = answers["200"]
        with there.gateway():
            eventually(lambda: answers["200"] > before + ANSWERED, "the other deployment gets data again", 180)
            there.fleet.stop()
        ring.wrong += there.wrong()
        gateway.wanted = True
        flowing(ring)
    return Blow("moved", 3, spooled + spooled_there, "spooled messages", f"another {what}")
