"""Measures the lag of every consumer group of our topics, in records and in time, even if it does not run.

Every consumer group with a committed offset on one of our topics is included, also those of other programs. Offsets
come from the brokers, so the lag of a group without members is known, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tallystream.exporter.timestamps import Place, Stamps
from tallystream.schemas.errors import UnreachableError
from tallystream.streams.kafka.admin import new_admin
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.lag import PartitionLag
from tallystream.streams.kafka.lifecycle import close, own_cancel_only, start
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics

log = structlog.get_logger()
MAX_GROUPS = 50
"""Maximum number of groups, ours first. A limit is needed because each console consumer creates a new group."""
DISCOVER_EVERY = 30.0
"""Seconds between two listings of all groups of the cluster."""


@dataclass(frozen=True)
class GroupPartition:
    """The position of one group in one partition."""

    group: str
    topic: str
    lag: PartitionLag
    oldest_ms: int | None
    """Append time of the oldest unread record; None if all are read."""


@dataclass(frozen=True)
class Lags:
    """All measurements of one moment."""

    read_at_ns: int
    """Processing time at which the end offsets were requested."""
    partitions: Sequence[GroupPartition]
    newest_usage_ms: int | None
    """Append time of the newest usage message; None if the topic is empty."""
    unseen_usage_ms: int | None
    """Append time of the oldest usage message not yet included in a row; None if all are included."""


class LagReader:
    """Reads offsets repeatedly over the same connections. A context manager.

    Raises, from entering and from `read`:
        UnreachableError: Kafka did not answer within `timeout` seconds.
    """

    def __init__(self, kafka: KafkaSettings, topics: Topics, *, timeout: float = 10.0) -> None:
        self._kafka = kafka
        self._timeout = timeout
        self._ours = (topics.worker_app, topics.usage.name)
        self._sizes = {spec.name: spec.partitions for spec in topics.all()}
        self._admin = new_admin(kafka)
        self._groups: list[str] = []
        self._discovered: float | None = None
        self._stamps: Stamps | None = None

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._timeout):
                await start(self._admin)
        except BaseException as exc:
            await self._close()
            raise self._unreachable(exc) if isinstance(exc, KafkaError | OSError) else exc from exc
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def read(self, rows_up_to: Mapping[int, int]) -> Lags:
        """Return the lags. `rows_up_to`: the newest usage offset included in a row, by partition, if known."""
        try:
            with own_cancel_only():
                async with asyncio.timeout(self._timeout):
                    return await self._read(rows_up_to)
        except (KafkaError, OSError) as exc:  # a TimeoutError is an OSError
            raise self._unreachable(exc) from exc

    async def _read(self, rows_up_to: Mapping[int, int]) -> Lags:
        group, usage = self._ours
        if self._discovered is None or time.monotonic() - self._discovered > DISCOVER_EVERY:
            await self._discover()
        positions = {name: await self._positions(name) for name in self._groups}
        own = positions.setdefault(group, {})
        topics = {at.topic for found in positions.values() for at in found} | {usage}
        stamps = await self._open_stamps(topics)
        read_at_ns = time.time_ns()
        begins, ends = await stamps.extent()
        # Committed offsets are read after the ends, so that a lag of 0 means that every existing record is counted.
        own.update(await self._positions(group))
        lags = [
            (name, at.topic, PartitionLag(at.partition, offset, begins[at], ends[at]))
            for name, found in positions.items()
            for at, offset in sorted(found.items())
            if at in ends and name != group
        ]
        of_usage = [at for at in stamps.partitions if at.topic == usage]
        ours = [PartitionLag(at.partition, own.get(at), begins[at], ends[at]) for at in of_usage]
        lags += [(group, usage, lag) for lag in ours]
        oldest = {
            (name, topic, lag.partition): (TopicPartition(topic, lag.partition), _next(lag))
            for name, topic, lag in lags
            if lag.behind
        }
        unseen = [
            (TopicPartition(usage, lag.partition), offset)
            for lag in ours
            if (offset := max(_next(lag), rows_up_to.get(lag.partition, -1) + 1)) < lag.end
        ]
        newest = [(TopicPartition(usage, lag.partition), lag.end - 1) for lag in ours if lag.end > lag.begin]
        found = await stamps.read([*oldest.values(), *unseen, *newest], ends)
        return Lags(
            read_at_ns,
            [
                GroupPartition(
                    name,
                    topic,
                    lag,
                    found[oldest[name, topic, lag.partition]] if (name, topic, lag.partition) in oldest else None,
                )
                for name, topic, lag in lags
            ],
            max(_stamps_of(newest, found), default=None),
            min(_stamps_of(unseen, found), default=None),
        )

    async def _discover(self) -> None:
        """Find the groups with a committed offset on one of our topics."""
        group, _ = self._ours
        names = {name for name, *_ in await self._admin.list_consumer_groups()} - {group}
        found = [group]
        for name in sorted(names):
            if len(found) == MAX_GROUPS:
                log.warning("too_many_groups", shown=MAX_GROUPS, groups=len(names))
                break
            if await self._positions(name):
                found.append(name)
        self._groups, self._discovered = found, time.monotonic()

    async def _positions(self, group: str) -> dict[TopicPartition, int]:
        """Return the group's offsets on our topics; empty if we are not authorized to see another program's group."""
        try:
            found = await self._admin.list_consumer_group_offsets(group)
        except AttributeError as exc:
            # aiokafka 0.14 raises this for an error of one partition, as it reads a code that is not in the answer.
            raise unreachable(self._kafka, exc, f"tell the offsets of the group {group}") from exc
        except KafkaError as exc:
            if exc.retriable or group == self._ours[0]:
                raise
            return {}
        return {
            TopicPartition(at.topic, at.partition): position.offset
            for at, position in found.items()
            if at.topic in self._sizes and position.offset >= 0
        }

    async def _open_stamps(self, topics: set[str]) -> Stamps:
        wanted = [TopicPartition(topic, p) for topic in sorted(topics) for p in range(self._sizes[topic])]
        if self._stamps is None or self._stamps.partitions != tuple(wanted):
            # A consumer whose assignment was changed may hang when it is stopped (aiokafka 0.14), so a new one is used.
            await self._close_stamps()
            self._stamps = Stamps(self._kafka, wanted, timeout=self._timeout)
            await self._stamps.open()
        return self._stamps

    async def _close_stamps(self) -> None:
        if self._stamps is not None:
            stamps, self._stamps = self._stamps, None
            await stamps.close()

    async def _close(self) -> None:
        await self._close_stamps()
        await close(self._admin)

    def _unreachable(self, exc: BaseException) -> UnreachableError:
        return unreachable(self._kafka, exc, "tell its offsets")


def _next(lag: PartitionLag) -> int:
    """Return the offset of the first record that the group has not read."""
    return lag.begin if lag.committed is None else max(lag.committed, lag.begin)


def _stamps_of(places: Sequence[Place], found: Mapping[Place, int | None]) -> list[int]:
    return [stamp for place in places if (stamp := found[place]) is not None]
