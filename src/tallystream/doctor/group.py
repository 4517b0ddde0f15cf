"""Checks that the workers keep up, by two measurements `watch` seconds apart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from aiokafka.errors import KafkaError

from tallystream.doctor.model import Check, DoctorContext, Finding
from tallystream.schemas.errors import UnreachableError
from tallystream.streams.kafka.admin import administering
from tallystream.streams.kafka.lag import GroupLag, PartitionLag

GROWTH = 100
"""A growing lag is reported from this many messages on, and if it grew by at least as many."""


async def look(context: DoctorContext) -> list[Finding]:
    """Compare the group's positions with the ends of `usage`."""
    group = context.topics.worker_app
    try:
        async with GroupLag(context.kafka, group, context.topics.usage.name) as lag:
            before = await lag.read()
            await asyncio.sleep(context.watch)
            after = await lag.read()
            retention = int(context.topics.usage.config["retention.ms"])
            half = context.clock.now_ns() // 1_000_000 - retention // 2
            young = await lag.offsets_at(half)
    except UnreachableError as exc:
        return [Finding("group", exc.message, exc.hint)]
    found = judge(before, after, await _state(context, group), context.watch)
    return [*gone(after), *ageing(after, young, retention), *found]


def gone(lags: Sequence[PartitionLag]) -> list[Finding]:
    """Return a finding if messages of `usage` were removed before they were counted. Pure."""
    lost = [one for one in lags if one.lost]
    if not lost:
        return []
    where = ", ".join(f"{one.partition}: {one.committed} to {one.begin - 1}" for one in lost)
    return [
        Finding(
            "lost",
            f"{sum(one.lost for one in lost):,} messages of `usage` were removed before they were counted"
            f" (partition: offsets {where})",
            "their usage is lost; start the worker with --accept-loss to continue"
            " after them (docs/operations/recovery.md)",
        )
    ]


def ageing(lags: Sequence[PartitionLag], young: Mapping[int, int], retention_ms: int) -> list[Finding]:
    """Return a finding if uncounted messages are older than half of the retention. Pure.

    `young` is the offset of the first younger message of each partition that has one.
    """
    old = [one for one in lags if one.behind and _position(one) < young.get(one.partition, one.end)]
    if not old:
        return []
    return [
        Finding(
            "retention",
            f"messages on partitions {[one.partition for one in old]} have waited for more than"
            f" {retention_ms / 2 / 86_400_000:g} days; after {retention_ms / 86_400_000:g} days Kafka removes them",
            "start the workers; a longer retention.ms of `usage` keeps the messages until they have caught up",
        )
    ]


def _position(lag: PartitionLag) -> int:
    return lag.begin if lag.committed is None else max(lag.committed, lag.begin)


async def _state(context: DoctorContext, group: str) -> str:
    """Return the group's state as Kafka names it, or `?` if Kafka does not return it."""
    try:
        async with administering(context.kafka) as admin:
            responses = await admin.describe_consumer_groups([group])
        return next((str(one[2]) for response in responses for one in response.groups), "?")
    except (KafkaError, OSError):
        return "?"


def judge(before: Sequence[PartitionLag], after: Sequence[PartitionLag], state: str, seconds: float) -> list[Finding]:
    """Return the findings from two measurements of the lag. Pure."""
    found = []
    if beyond := [one.partition for one in after if one.beyond]:
        found.append(
            Finding(
                "recreated",
                f"the workers' positions are past the end of partitions {beyond}: `usage` was deleted and recreated",
                "start over with another TALLYSTREAM_PREFIX (docs/operations/recovery.md)",
            )
        )
    was, now = sum(one.behind for one in before), sum(one.behind for one in after)
    if state in ("Empty", "Dead") and now:
        found.append(
            Finding(
                "group", f"no worker runs: {now:,} messages wait", "start one; Kafka keeps the messages for 14 days"
            )
        )
        return found
    first = {one.partition: one for one in before}
    stuck = [
        one.partition
        for one in after
        if one.behind and first[one.partition].behind and one.committed == first[one.partition].committed
    ]
    if stuck:
        rebalancing = " (the group rebalances)" if "Rebalance" in state else ""
        found.append(
            Finding(
                "group",
                f"messages wait on partitions {stuck} and none was counted for {seconds:g} s{rebalancing}",
                "see `tallystream status` and the workers' logs; a stuck worker is restarted by `up` after 20 s, or by"
                " Kubernetes because of /healthz (docs/operations/rebalance.md)",
            )
        )
    elif now > was + GROWTH and was > GROWTH:
        found.append(
            Finding(
                "lag",
                f"the lag grows: {was:,} messages {seconds:g} s ago, {now:,} now",
                "run more workers, up to one for each partition: `tallystream up --workers N`",
            )
        )
    return found


CHECK = Check("group", look, needs_kafka=True)
