"""The verdict on a run, from the fleets' truth, a check of the topics, and a worker that recovers from nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.chaos import ends, laws
from tests.chaos import ledger as accounts
from tests.chaos.brokers import beside_each_other
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Blow, Ring
from tests.chaos.load import Fleet, Watched
from tests.chaos.parts import ROOT

from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.simulator import Response, compare
from tallystream.streams.runtime import late_writes

SHOWN = 20


@dataclass
class Verdict:
    """`problems` is empty if everything is exact."""

    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    book: accounts.Ledger = field(default_factory=accounts.Ledger)
    """The content of the topics."""

    @property
    def exact(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        if self.exact:
            return "EXACT"
        return f"WRONG, {len(self.problems)} problems\n" + "\n".join(self.problems[:SHOWN])


class Used(NamedTuple):
    """What distinguishes a response of the fleet from the others of its session."""

    session_id: str
    model: str
    input: int
    """Cached or not."""
    output: int


def judge(
    ring: Ring,
    blows: list[Blow],
    fleets: list[Fleet],
    never: Mapping[Reason, Fleet] = MappingProxyType({}),
    *,
    fresh: bool = True,
) -> Verdict:
    """Judge a cluster whose load has stopped. Nothing of the fleets in `never` may count, because of their clocks; the
    keys are the expected reasons.

    `fresh` also recovers everything with a worker on an empty data dir.
    """
    cluster, verdict = ring.cluster, Verdict(list(ring.wrong))
    cluster.all_ready()
    cluster.caught_up()
    rows = cluster.rows()
    for fleet in fleets:
        verdict.problems += [str(one) for one in compare(fleet.truth, rows)]
    book = verdict.book = _settled(cluster)
    verdict.problems += laws.judge(book, cluster.witness.snapshots)
    for session, requests in ring.many.items():
        counted = sum(row["requests"] for row in rows if row["session_id"] == session)
        if counted != requests:
            verdict.problems.append(f"rows: {session} counts {counted} requests, {requests} were sent")
    known = {session for fleet in fleets for session in fleet.truth.session_ids} | ring.many.keys()
    verdict.problems += [f"rows: {r['session_id']} is no session of ours" for r in rows if r["session_id"] not in known]
    verdict.problems += letters_law(
        book.letters,
        set(ring.poisoned),
        {reason: fleet.truth for reason, fleet in never.items()},
        ring.many.keys(),
        book.corrections,
    )
    verdict.problems += [f"ended by an error nobody expected: {one}" for one in ends.unexpected(cluster.folder)]
    if fresh:
        _fresh_worker(verdict, cluster, book)
    _figures(verdict, book, ring, blows, fleets)
    return verdict


def _settled(cluster: Cluster) -> accounts.Ledger:
    """Read the topics once the owners have overwritten late rows, for which they check periodically."""
    deadline = time.monotonic() + 6 * late_writes.CHECK_EVERY
    while True:
        book = asyncio.run(accounts.read(cluster.kafka, cluster.topics))
        if not laws.hidden(book) or time.monotonic() > deadline:
            return book
        time.sleep(1)


def letters_law(
    letters: Mapping[str, DeadLetter],
    poison: AbstractSet[str],
    never: Mapping[Reason, Watched],
    many: AbstractSet[str] = frozenset(),
    corrections: AbstractSet[str] = frozenset(),
) -> list[str]:
    """There must be dead letters for the poison and for the fleets with absurd clocks, and no others, except of copies
    in sessions with too many requests, and of price corrections whose row has changed meanwhile.

    Each acknowledged response of these fleets must have one with its usage, and none may show unsent usage.
    """
    wrong = []
    told: dict[Reason, dict[Used, str]] = {reason: {} for reason in never}
    for source, letter in letters.items():
        if source in poison and letter.reason is Reason.INVALID_MESSAGE:
            continue
        if letter.reason is Reason.BEYOND_DEDUPE and letter.session_id in many:
            continue
        if letter.reason is Reason.REPRICE_REFUSED and source in corrections:
            continue
        used = used_of(letter)
        if used is None or letter.reason not in told:
            wrong.append(f"dead letters: {source} is {letter.reason.value}: {letter.detail}")
        else:
            told[letter.reason][used] = source
    for reason, truth in never.items():
        acknowledged = {used_by(response) for response in truth.acknowledged_responses}
        sent = {used_by(response) for response in truth.sent_responses}
        if not acknowledged:
            wrong.append(f"dead letters: nothing was acknowledged that is {reason.value}, so that nothing is proven")
        wrong += [f"dead letters: none is {reason.value} of {used}" for used in acknowledged - told[reason].keys()]
        wrong += [
            f"dead letters: {source} is {reason.value} of {used}, which was never sent"
            for used, source in told[reason].items()
            if used not in sent
        ]
    return wrong + [f"dead letters: none for {source}" for source in poison - letters.keys()]


def used_by(response: Response) -> Used:
    """Return what distinguishes a response, from the fleet's data."""
    read = response.input_uncached + response.cache_read + response.cache_write_5m + response.cache_write_1h
    return Used(response.session.session_id, response.model, read, response.output)


def used_of(letter: DeadLetter) -> Used | None:
    """Return the same out of a dead letter: of the worker's, which holds a usage event, or of the gateway's, which
    holds a client's record; None when it holds neither.
    """
    record = letter.record
    try:
        if "events" in record:
            (event,) = record["events"]
            read = sum(event[name] for name in ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h"))
            found = Used(record["session_id"], event["model"], read, event["output"])
        else:
            read, output = int(record["input_token_count"]), int(record["output_token_count"])
            found = Used(record["conversation.id"], record["model"], read, output)
    except (KeyError, ValueError, TypeError):
        return None
    return found if letter.session_id == found.session_id else None


def _fresh_worker(verdict: Verdict, cluster: Cluster, book: accounts.Ledger) -> None:
    """Stop all workers and recover everything on an empty data dir."""
    beside_each_other([worker.stop for worker in cluster.workers])
    argv = [sys.executable, "-m", "tests.chaos.recover", cluster.addresses, str(cluster.topics.partitions)]
    done = subprocess.run(
        [*argv, str(cluster.data("fresh"))], cwd=ROOT, env=cluster.environment, capture_output=True, timeout=180,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        verdict.problems.append(f"fresh worker: ended with {done.returncode}: {done.stderr.decode()[-500:]}")
        return
    found = json.loads(done.stdout)
    verdict.figures["recovery_seconds"] = round(found["seconds"], 1)
    verdict.figures["recovered_rows"] = len(found["rows"])
    published = {key.decode(): row for key, row in book.rows.items()}
    verdict.problems += [
        f"fresh worker: {key!r} differs from what is published"
        for key in found["rows"].keys() | published.keys()
        if found["rows"].get(key) != published.get(key)
    ]
    ends = {str(p): log[-1][0] + 1 for p, log in book.usage.items()}
    verdict.problems += [
        f"fresh worker: partition {p} goes on at {found['positions'].get(p)}, not at {end}"
        for p, end in ends.items()
        if found["positions"].get(p) != end
    ]


def _figures(verdict: Verdict, book: accounts.Ledger, ring: Ring, blows: list[Blow], fleets: list[Fleet]) -> None:
    figures = verdict.figures
    figures["requests"] = sum(fleet.report.bodies for fleet in fleets)
    figures["records"] = sum(fleet.report.records for fleet in fleets)
    figures["answers"] = dict(sum((fleet.truth.http for fleet in fleets), start=type(fleets[0].truth.http)()))
    figures["seconds"] = round(max(fleet.report.seconds for fleet in fleets))
    figures["requests_per_s"] = round(sum(f.report.bodies / max(f.report.seconds, 1e-9) for f in fleets))
    figures["records_per_s"] = round(sum(f.report.records / max(f.report.seconds, 1e-9) for f in fleets))
    figures["events_on_usage"] = book.counted["events"]
    figures["copies_not_counted"] = book.counted["copies"]
    figures["price_corrections"] = book.counted["corrections"]
    figures["dead_letters"] = len(book.letters)
    figures["session_hours"] = len(book.rows)
    figures["garbage_ignored"] = book.counted["garbage"]
    figures["snapshots"] = len(ring.cluster.witness.snapshots)
    figures["kills"] = sum(blow.kills for blow in blows)
    figures["exits"] = ring.cluster.exits()
    after = [
        one for blow in blows if blow.kind == "worker" for one in accounts.freshness(book, blow.at - 1, blow.at + 5)
    ]
    worst = [
        max(found)
        for blow in blows
        if blow.kind == "worker" and (found := accounts.freshness(book, blow.at - 1, blow.at + 5))
    ]
    calm = accounts.freshness(book, 0, time.time())
    figures["freshness_all"] = percentiles(calm)
    figures["freshness_after_worker_kill"] = percentiles(after)
    figures["oldest_row_after_worker_kill"] = percentiles(worst)


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p99 and the highest, in seconds."""
    ordered = sorted(values)
    if not ordered:
        return {}
    last = len(ordered) - 1
    shares = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    return {name: round(ordered[round(share * last)], 3) for name, share in shares}
