"""Writes docs/chaos.md: each run writes its own section, between markers."""

from __future__ import annotations

import os
import platform
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.campaign import Outcome
from tests.chaos.ends import OURS
from tests.chaos.faults import KINDS, Blow

TITLE = "# Exact under crashes: the evidence\n"


def write(path: Path, name: str, text: str) -> None:
    """Write a section into the report, replacing the one with that name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = path.read_text() if path.exists() else TITLE
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
            ["Replication 3 and `min.insync.replicas` 2, our defaults on a cluster of three or more brokers.", ""]
            if outcome.brokers > 1
            else []
        ),
        (
            f"{len(blows)} faults, {figures['kills']} processes ended by SIGKILL, {replayed:,} requests and messages"
            f" not yet acknowledged at that moment: {exact}."
        ),
        "",
        *_kinds(blows),
        "",
        (
            f"Load: {figures['requests']:,} OTLP requests in {figures['seconds']:,} s ({figures['requests_per_s']}/s,"
            f" {figures['records_per_s']:,} records/s), never retried. Answers: {_answers(figures['answers'])}."
        ),
        "",
        "| checked | |",
        "|---|---:|",
        f"| usage events that reached Kafka | {figures['events_on_usage']:,} |",
        f"| of these, duplicates (counted once) | {figures['copies_not_counted']:,} |",
        *(
            [f"| price corrections that were applied | {figures['price_corrections']:,} |"]
            if figures["price_corrections"]
            else []
        ),
        f"| dead letters, each with the expected reason | {figures['dead_letters']:,} |",
        f"| session-hours, exact to the token and the picodollar | {figures['session_hours']:,} |",
        f"| moments at which positions were compared with the topics | {figures['snapshots']:,} |",
        f"| unreadable records, ignored by readers and recovery | {figures['garbage_ignored']:,} |",
        f"| processes that ended by themselves, with exit codes | {_exits(figures['exits'])} |",
        (
            f"| session-hours recovered by a new worker | {figures['recovered_rows']:,} in"
            f" {figures['recovery_seconds']} s |"
        ),
        "",
        "| seconds from Kafka's append to the row | p50 | p99 | highest |",
        "|---|---:|---:|---:|",
        _percentiles("all messages of the run", figures["freshness_all"]),
        _percentiles(
            "messages within 6 s around a worker's kill, all partitions", figures["freshness_after_worker_kill"]
        ),
        _percentiles("the longest of these for each kill", figures["oldest_row_after_worker_kill"]),
    ]
    return "\n".join(lines)


def _kinds(blows: Sequence[Blow]) -> list[str]:
    by_kind: dict[str, list[Blow]] = defaultdict(list)
    for blow in blows:
        by_kind[blow.kind].append(blow)
    rows = ["| kind | what it does | faults | SIGKILLs | not yet acknowledged |", "|---|---|---:|---:|---|"]
    for name, fault in KINDS.items():
        if found := by_kind.get(name):
            counts = [blow.unacked for blow in found]
            each = f"{sum(counts):,} {found[0].unit} ({min(counts):,} to {max(counts):,} per fault)"
            what = (fault.__doc__ or "").splitlines()[0].rstrip(".")
            rows.append(f"| {name} | {what} | {len(found)} | {sum(b.kills for b in found)} | {each} |")
    return rows


def _answers(answers: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} x {status}" for status, count in sorted(answers.items()))


def _exits(exits: Mapping[str, Sequence[int]]) -> str:
    """Return how often each component ended with which code, without the ends that a fault brought about."""
    found = Counter((name, code) for name, codes in exits.items() for code in codes if code not in OURS)
    return ", ".join(f"{name} {count} x {code}" for (name, code), count in sorted(found.items())) or "none"


def _percentiles(name: str, figures: Mapping[str, float]) -> str:
    if not figures:
        return f"| {name} | | | |"
    return f"| {name} | {figures['p50']:.2f} | {figures['p99']:.2f} | {figures['max']:.2f} |"
