"""One chaos run: a cluster under load, faults in random order, and the verdict."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos import companions, leaders, mishaps, moves, prices, surroundings  # noqa: F401 - they add their kinds
from tests.chaos.cluster import Cluster
from tests.chaos.ends import say
from tests.chaos.faults import KINDS, Blow, Ring
from tests.chaos.load import Fleet, Fleetwise
from tests.chaos.oracle import Verdict, judge
from tests.support.waiting import eventually

from tallystream.schemas.errors import Reason

NEEDS_SMALL_DISK = {"disk-spool", "disk-store", "disk-start", "disk-companions"}
NEEDS_PROXY = {"latency", "resets"}
NEEDS_CLOCK = {"broker-clock"}
NEEDS_ALL_PARTS = {"sigterm", "poison", "companions", "disk-companions"}
NEEDS_BROKERS = {"leader", "leader-zombie", "two-leaders", "broker-rolling"}
DISK_MB = 160
ABSURD_NS = {Reason.FROM_THE_FUTURE: 3_439_756_800_000_000_000, Reason.NO_TIME: 7_258_118_400_000_000_000}
"""The clocks of fleets of which nothing may count, by the expected reason: in 2079, and in 2200 (which the gateway
does not accept as a time)."""


@dataclass
class Outcome:
    """What a campaign did and what came of it."""

    blows: list[Blow] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    workers: int = 0
    seed: int = 0
    brokers: int = 1


def run(
    folder: Path,
    plan: Sequence[str],
    *,
    workers: int = 2,
    rate: float = 100.0,
    seed: int = 1,
    clocks: bool = False,
    brokers: int = 1,
    between: tuple[float, float] = (0.3, 1.5),
    agents: int = 50,
    requests: int | None = None,
) -> Outcome:
    """Inject the faults of `plan` in a random order under load, then judge the result.

    `clocks` adds fleets whose clocks are hours off, and two that live in other ages (`ABSURD_NS`). With `requests` the
    fleet does its whole work, and the faults must fall into it; else it works for as long as there are faults.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # unavailable brokers are expected
    outcome = Outcome(workers=workers, seed=seed, brokers=brokers)
    disk = DISK_MB if NEEDS_SMALL_DISK & set(plan) else 0
    proxied = bool(NEEDS_PROXY & set(plan))
    with Cluster(
        folder, workers=workers, seed=seed, disk_mb=disk, proxied=proxied, brokers=brokers,
        companions=bool(NEEDS_ALL_PARTS & set(plan)), clocked=bool(NEEDS_CLOCK & set(plan)),
    ) as cluster:  # fmt: skip
        base, ingest_id = f"http://127.0.0.1:{cluster.port}", cluster.connect()
        how = Fleetwise(rate, seed, agents=agents)
        fleets = [Fleet(base, ingest_id, how if requests is None else replace(how, requests=requests))]
        never: dict[Reason, Fleet] = {}
        if clocks:
            fleets += [
                Fleet(base, ingest_id, Fleetwise(5, seed + n, agents=5, skew_hours=skew))
                for n, skew in ((1, -6.0), (2, 5.0))
            ]
            never = {
                reason: Fleet(base, ingest_id, Fleetwise(1, seed + n, agents=2, at_ns=at_ns, late=0.0))
                for n, (reason, at_ns) in enumerate(ABSURD_NS.items(), 3)
            }
        ring = Ring(cluster, fleets[0])
        for fleet in (*fleets, *never.values()):
            fleet.start()
        try:
            order = list(plan)
            cluster.random.shuffle(order)
            for n, name in enumerate(order, 1):
                ring.pause(*between)
                assert fleets[0].running, "the load has ended before the faults did"
                blow = KINDS[name](ring)
                outcome.blows.append(blow)
                note = f" ({blow.note})" if blow.note else ""
                say(f"{n:3}/{len(order)} {blow.kind:18} {blow.unacked:6,} {blow.unit} not acknowledged{note}")
            if requests is not None:
                say("the faults are over; the fleet works on")
                eventually(lambda: not fleets[0].running, "the fleet's work is done", 3 * requests / rate)
        finally:
            for fleet in (*fleets, *never.values()):
                with suppress(Exception):
                    fleet.stop()
        outcome.verdict = judge(ring, outcome.blows, fleets, never)
    say(f"{Counter(b.kind for b in outcome.blows)}\n{outcome.verdict.figures}\n{outcome.verdict}")
    return outcome
