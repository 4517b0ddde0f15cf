"""The doctor's findings from given numbers."""

from __future__ import annotations

from typing import Any

import pytest

from tallystream.doctor import clocks, group, ledger, spool, topics
from tallystream.schemas.status import GatewayStatus, LedgerStatus
from tallystream.streams.kafka.lag import PartitionLag

WEEK = 7 * 86_400.0
WELL = GatewayStatus(
    requests_in_progress=0, quarantine_requests=0, quarantine_bytes=0, spool_messages=0, spool_bytes=0,
    spool_max_bytes=1_000_000_000, spool_oldest_age_seconds=0.0, kafka_live=True, connections=3,
)  # fmt: skip


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({}, []),
        ({"kafka_live": False}, []),
        ({"spool_messages": 5, "spool_bytes": 10_000}, []),
        ({"spool_messages": 5, "kafka_live": False}, ["Kafka does not acknowledge"]),
        ({"spool_messages": 5, "spool_bytes": 600_000_000}, ["60% full"]),
        ({"spool_messages": 5, "spool_oldest_age_seconds": 4 * 86_400.0}, ["96 h old"]),
        ({"quarantine_requests": 2}, ["does not know yet"]),
        ({"spool_messages": 5, "kafka_live": False, "spool_bytes": 900_000_000}, ["does not acknowledge", "90% full"]),
    ],
)
def test_findings_about_the_spool(held: dict[str, Any], words: list[str]) -> None:
    found = spool.judge("gateway", WELL.model_copy(update=held), WEEK)
    assert [one.check for one in found] == ["spool"] * len(words)
    assert all(word in one.what for word, one in zip(words, found, strict=True))
    assert all(one.step for one in found)


def lag(*committed: int | None, end: int = 1000, begin: int = 0) -> list[PartitionLag]:
    return [PartitionLag(p, at, begin, end) for p, at in enumerate(committed)]


@pytest.mark.parametrize(
    ("before", "after", "state", "checks", "word"),
    [
        (lag(1000), lag(1000), "Stable", [], ""),
        (lag(None, end=0), lag(None, end=0), "Empty", [], ""),
        (lag(900), lag(980), "Stable", [], ""),
        (lag(900), lag(900), "Stable", ["group"], "partitions [0]"),
        (lag(900), lag(900), "PreparingRebalance", ["group"], "the group rebalances"),
        (lag(900, 1000), lag(950, 1000), "Stable", [], ""),
        (lag(900), lag(900), "Empty", ["group"], "no worker runs: 100"),
        (lag(None), lag(None), "Dead", ["group"], "no worker runs: 1,000"),
        (lag(800), lag(900, end=1400), "Stable", ["lag"], "200 messages 3 s ago, 500 now"),
        (lag(990), lag(995, end=1050), "Stable", [], ""),
        (lag(1200), lag(1200), "Stable", ["recreated"], "past the end of partitions [0]"),
    ],
)
def test_findings_about_the_consumer_group(
    before: list[PartitionLag], after: list[PartitionLag], state: str, checks: list[str], word: str
) -> None:
    found = group.judge(before, after, state, 3.0)
    assert [one.check for one in found] == checks
    assert not found or word in found[0].what


@pytest.mark.parametrize(("off", "word"), [(0, ""), (4.9, ""), (-4.9, ""), (3600, "ahead of"), (-90, "behind")])
def test_findings_about_clocks(off: float, word: str) -> None:
    found = clocks.judge("the broker's clock", 1_800_000_000 + off, 1_800_000_000)
    assert [one.check for one in found] == (["clock"] if word else [])
    assert not word or word in found[0].what


def partition(leader: int, replicas: list[int], isr: list[int]) -> dict[str, Any]:
    return {"partition": 4, "leader": leader, "replicas": replicas, "isr": isr}


@pytest.mark.parametrize(
    ("described", "brokers", "checks"),
    [
        (partition(1, [1], [1]), 1, []),
        (partition(1, [1], [1]), 2, []),
        (partition(1, [1, 2, 3], [1, 2, 3]), 3, []),
        (partition(1, [1, 2, 3], [1, 3]), 3, ["replicas"]),
        (partition(1, [1, 2, 3], [1, 3]), 2, ["replicas"]),
        (partition(-1, [1, 2, 3], [1]), 3, ["replicas", "replicas"]),
        (partition(2, [2], [2]), 3, ["replicas"]),
    ],
)
def test_findings_about_replicas(described: dict[str, Any], brokers: int, checks: list[str]) -> None:
    well = partition(1, [1, 2, 3], [1, 2, 3])
    found = topics.replicas({"t.usage": [well, described], "t.activity": [well]}, brokers)
    assert [one.check for one in found] == checks
    assert all("t.usage" in one.what and "t.activity" not in one.what and one.step for one in found)


def test_messages_removed_uncounted_are_reported() -> None:
    (found,) = group.gone([PartitionLag(0, 6, 14, 14), PartitionLag(1, 5, 5, 9)])
    assert (found.check, "8 messages" in found.what, "0: 6 to 13" in found.what) == ("lost", True, True)
    assert "--accept-loss" in found.step
    assert group.gone(lag(900, None)) == []


@pytest.mark.parametrize(
    ("lags", "young", "partitions"),
    [
        (lag(900), {0: 800}, []),
        (lag(900), {0: 950}, ["[0]"]),
        (lag(900, 1000), {}, ["[0]"]),
        (lag(1000), {}, []),
        (lag(None, begin=10), {0: 20}, ["[0]"]),
        (lag(None, begin=10), {0: 10}, []),
    ],
)
def test_messages_near_retention_are_reported(
    lags: list[PartitionLag], young: dict[int, int], partitions: list[str]
) -> None:
    found = group.ageing(lags, young, 14 * 86_400_000)
    assert [one.check for one in found] == ["retention"] * len(partitions)
    assert all(word in one.what and "7 days" in one.what for word, one in zip(partitions, found, strict=True))


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"spool_writable": False}, "cannot write a spool"),
        ({"spool_files_unopened": 1}, "cannot open 1 spool files"),
        ({"spool_files_damaged": 2}, "2 damaged spool files"),
        ({"spool_foreign_messages": 5}, "5 messages of another prefix"),
        ({"topics_unfit": True, "partitions_away": 14}, "a topic has wrong settings"),
        ({"partitions_away": 3}, "3 partitions"),
    ],
)
def test_findings_about_spool_files(said: dict[str, int], word: str) -> None:
    (found,) = spool.judge("gateway", WELL.model_copy(update=said), WEEK)
    assert word in found.what


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({}, []),
        ({"behind": 300}, []),
        ({"behind": 4_000_000}, ["4,000,000 records to read"]),
        ({"behind": 4_000_000, "active": False}, []),
        ({"unreadable": 2, "caught_up": True}, ["could not read 2 records"]),
    ],
)
def test_ledger(held: dict[str, Any], words: list[str]) -> None:
    well = LedgerStatus(active=True, caught_up=False, behind=0, unreadable=0, read=[])
    found = ledger.judge(well.model_copy(update=held))
    assert [one.check for one in found] == ["ledger"] * len(words)
    assert all(word in one.what for word, one in zip(words, found, strict=True))
