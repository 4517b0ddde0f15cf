"""docs/chaos.md: sections between markers, each written by the run that measured it."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.campaign import Outcome
from tests.chaos.faults import KINDS, Blow

INTRO = """# Exact under crashes: the proof

Real processes (embedded Apache Kafka, gateway, workers) under steady load from the simulated fleet; faults at random
moments, SIGKILL unless said; then the verdict: rows against the fleet's truth, the ledger of the topics, positions
against what was published when each process died, and a fresh worker on an empty data dir (`tests/chaos/oracle.py`,
`tests/chaos/ledger.py`). That this oracle can fail is itself tested (`tests/chaos/test_oracle_can_fail.py`).

Run it again with `make chaos`. A run of 12 kills and more and a rolling restart are part of `make test`.

A power cut is played by killing everything at one moment and then cutting off what was not on the disk: the ends of
Kafka's logs, except of topics that are flushed at once, and of the workers' stores. `tests/e2e/test_mishaps.py` plays
mishaps on the whole product: another prefix on the same directory, an older store, a power cut that takes counted
messages, a machine that changes its name.
"""


def write(path: Path, name: str, text: str) -> None:
    """Put a section into the report, in place of the one of that name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = path.read_text() if path.exists() else INTRO
    section = f"{begin}\n{text.strip()}\n{end}"
    if begin in old:
        before, _, rest = old.partition(begin)
        new = before + section + rest.partition(end)[2]
    else:
        new = f"{old.rstrip()}\n\n{section}\n"
    path.write_text(new)


def header(command: str) -> str:
    """Return when, where and how something was measured."""
    load = os.getloadavg()
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{command}`, {os.cpu_count()} cores (load average at the end"
        f" {load[0]:.1f}: the machine was shared), {platform.system()}, Python"
        f" {platform.python_version()}."
    )


def render(outcome: Outcome, command: str, title: str) -> str:
    """Return the section of a campaign."""
    figures, blows = outcome.verdict.figures, outcome.blows
    exact = "**0 lost, 0 doubled**" if outcome.verdict.exact else f"**WRONG**\n\n```\n{outcome.verdict}\n```"
    replayed = sum(blow.unacked for blow in blows)
    lines = [
        f"## {title}",
        "",
        header(command),
        "",
        *(
            ["Replication 3 and `min.insync.replicas` 2, which are our defaults on a cluster of three and more.", ""]
            if outcome.brokers > 1
            else []
        ),
        (
            f"{len(blows)} faults, {figures['kills']} processes ended by SIGKILL, {replayed:,} requests and messages"
            f" that were not acknowledged at that moment: {exact}."
        ),
        "",
        *_kinds(blows),
        "",
        (
            f"Load: {figures['requests']:,} OTLP requests in {figures['seconds']:,} s ({figures['requests_per_s']}/s,"
            f" {figures['records_per_s']:,} records/s), never retried; answers: {_answers(figures['answers'])}."
        ),
        "",
        "| checked | |",
        "|---|---:|",
        f"| usage events that reached Kafka | {figures['events_on_usage']:,} |",
        f"| of them copies, counted once | {figures['copies_not_counted']:,} |",
        f"| dead letters, each with its reason | {figures['dead_letters']:,} |",
        f"| session-hours, exact to the token and the picodollar | {figures['session_hours']:,} |",
        f"| moments at which positions were held against the topics | {figures['snapshots']:,} |",
        f"| records of garbage ignored by readers and recovery | {figures['garbage_ignored']:,} |",
        (
            f"| session-hours recovered by a fresh worker | {figures['recovered_rows']:,} in"
            f" {figures['recovery_seconds']} s |"
        ),
        "",
        "| seconds from Kafka's append to the row | p50 | p99 | highest |",
        "|---|---:|---:|---:|",
        _percentiles("all messages of the run", figures["freshness_all"]),
        _percentiles(
            "messages of the 6 s around a worker's kill, all partitions", figures["freshness_after_worker_kill"]
        ),
        _percentiles("the oldest of these, a kill", figures["oldest_row_after_worker_kill"]),
    ]
    return "\n".join(lines)


def _kinds(blows: Sequence[Blow]) -> list[str]:
    by_kind: dict[str, list[Blow]] = defaultdict(list)
    for blow in blows:
        by_kind[blow.kind].append(blow)
    rows = ["| kind | what it does | faults | SIGKILLs | not acknowledged then |", "|---|---|---:|---:|---|"]
    for name, fault in KINDS.items():
        if found := by_kind.get(name):
            counts = [blow.unacked for blow in found]
            each = f"{sum(counts):,} {found[0].unit} ({min(counts):,} to {max(counts):,} a fault)"
            what = (fault.__doc__ or "").splitlines()[0].rstrip(".")
            rows.append(f"| {name} | {what} | {len(found)} | {sum(b.kills for b in found)} | {each} |")
    return rows


def _answers(answers: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} x {status}" for status, count in sorted(answers.items()))


def _percentiles(name: str, figures: Mapping[str, float]) -> str:
    if not figures:
        return f"| {name} | | | |"
    return f"| {name} | {figures['p50']:.2f} | {figures['p99']:.2f} | {figures['max']:.2f} |"
