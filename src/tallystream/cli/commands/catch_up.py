"""Waits for one component after the other, in the order of the pipeline: `tallystream wait --caught-up`.

The goal for each is the end of its source at the moment its turn comes. Records that arrive later are not waited for,
because a busy deployment would never be done.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tallystream.schemas.errors import MismatchError, UnreachableError
from tallystream.schemas.status import Detail, GatewayStatus, PollerStatus, ReadPosition, SinkStatus

if TYPE_CHECKING:
    from tallystream.settings.settings import Settings
    from tallystream.streams.kafka.lag import PartitionLag
    from tallystream.streams.kafka.settings import KafkaSettings
    from tallystream.streams.kafka.topics import Topics

POLL = 0.1
SEE_STATUS = "`tallystream status` shows whether everything runs"
GATEWAY_HOLDS = {
    "requests_in_progress": "requests being answered",
    "quarantine_requests": "requests in quarantine",
    "spool_files_unopened": "spool files that cannot be opened now",
    "spool_messages": "messages in the spool",
}
"""Fields of a gateway's status that must be seen at 0 in this order, because each can still feed the next."""
SINK_HOLDS = {
    "sweep_running": "comparison of all entities with Port",
    "repetitions_due": "requests with unknown outcome to be repeated",
    "backlog_documents": "changed documents",
    "backlog_entities": "entities on their way to Port",
}
"""The same for the active sink, once it has read its sources."""
Note = Callable[[str], None]
Offsets = dict[tuple[str, int], int]


@dataclass(frozen=True)
class Places:
    """Ops URLs by name."""

    gateways: dict[str, str] = field(default_factory=dict)
    pollers: dict[str, str] = field(default_factory=dict)
    sinks: dict[str, str] = field(default_factory=dict)


Find = Callable[[], Places]


def places_of(
    settings: Settings, gateways: Iterable[str] = (), pollers: Iterable[str] = (), sinks: Iterable[str] = ()
) -> Places:
    """Return the components of this machine, if they use this cluster, and those at the given URLs."""
    from tallystream.cli.options import read_run

    found = Places(*({url: url.rstrip("/") for url in urls} for urls in (gateways, pollers, sinks)))
    try:
        running = read_run(settings.data_dir)
    except UnreachableError:
        return found
    if settings.kafka is None or running.kafka == settings.kafka:
        kinds = {"gateway": found.gateways, "poller": found.pollers, "sink": found.sinks}
        for one in running.components:
            kind = re.fullmatch(r"(gateway|poller|sink)(-\d+)?", one.name)
            if kind is not None and one.ops_url is not None:
                kinds[kind[1]][one.name] = one.ops_url
    return found


async def catch_up(kafka: KafkaSettings, topics: Topics, find: Find, *, seconds: float, show: Note) -> None:
    """Return when caught up. `find` locates the components; `show` is called with a description of what is behind.

    Raises:
        UnreachableError: not caught up within `seconds`. The message says what was still behind.
        MismatchError: everything available has been counted, but acknowledged messages are missing from the tables.

    """
    behind = "nothing has been checked yet"

    def note(what: str) -> None:
        nonlocal behind
        behind = what
        show(what)

    try:
        async with asyncio.timeout(seconds):
            gateways = await _gateways(find, note)
            await _worker(kafka, topics, note)
            await _days(kafka, topics, find, note)
            await _statements(kafka, topics, find, note)
            await _sinks(kafka, topics, find, note)
            nothing_left_out(gateways)
    except TimeoutError:
        raise UnreachableError(
            f"not caught up within {seconds:g} s: {behind}",
            f"{SEE_STATUS}; --timeout waits longer",
        ) from None


# -- gateways


async def _gateways(find: Find, note: Note) -> list[GatewayStatus]:
    """Wait until no gateway holds anything; return the report of each that showed so.

    A gateway that is restarted meanwhile has another URL but the same spool.
    """
    urls = find().gateways
    seen: dict[str, set[str]] = {name: set() for name in urls}
    done = []
    for name, without in seen.items():
        while True:
            try:
                status = await _gateway(name, urls)
                if (behind := _left(name, status, GATEWAY_HOLDS, without)) is None:
                    done.append(status)
                    break
                note(behind)
            except UnreachableError as exc:
                note(exc.message)
            await asyncio.sleep(POLL)
            urls = find().gateways
    return done


async def _gateway(name: str, urls: Mapping[str, str]) -> GatewayStatus:
    """Ask a gateway once.

    Raises:
        UnreachableError: it does not answer, or does not know yet what it holds.

    """
    from tallystream.supervisor.ops_client import read_report

    if name not in urls:
        raise UnreachableError(f"{name} is gone", SEE_STATUS)
    try:
        detail = (await read_report(urls[name])).detail
    except UnreachableError as exc:
        raise UnreachableError(f"{name} {exc.message}", exc.hint) from exc
    if not isinstance(detail, GatewayStatus):
        raise UnreachableError(f"{name} does not report yet what it holds", SEE_STATUS)
    return detail


def nothing_left_out(gateways: Iterable[GatewayStatus]) -> None:
    """Check that no acknowledged message stays in a file that no gateway sends.

    The reports must be those in which the spools were empty: a file that has been recovered stops being counted here
    only after its messages are in a gateway's spool.

    Raises:
        MismatchError: there are such files.

    """
    # Gateways that share a volume report the same files.
    damaged = max((one.spool_files_damaged for one in gateways), default=0)
    foreign = max((one.spool_foreign_messages for one in gateways), default=0)
    left = []
    if damaged:
        left.append(f"{damaged:,} damaged spool files are set aside, of which some messages could not be read")
    if foreign:
        left.append(f"{foreign:,} acknowledged messages are in spools of another prefix, cluster or Kafka address")
    if left:
        raise MismatchError(
            f"caught up, but not everything acknowledged is in the tables: {' and '.join(left)}",
            "`tallystream spool list` shows the files, `tallystream spool recover FILE` brings them here; gateways look"
            " at them every 30 s",
        )


# -- the worker


async def _worker(kafka: KafkaSettings, topics: Topics, note: Note) -> None:
    """Wait until the worker has passed the current ends of its topics; the rows are published then.

    `calls` comes first, because calls become usage. The worker's position there does not pass a call that it holds.
    """
    await passed(kafka, topics.worker_app, topics.calls.name, note)
    while True:
        await passed(kafka, topics.worker_app, topics.usage.name, note)
        try:
            if await _readable(kafka, topics.session_hour_rows.name):
                return
            note(f"the topic {topics.session_hour_rows.name} does not exist")
        except UnreachableError as exc:
            note(exc.message)
        await asyncio.sleep(POLL)


async def passed(kafka: KafkaSettings, group: str, topic: str, note: Note) -> None:
    """Wait until a group's positions have passed the current ends of a topic."""
    from tallystream.streams.kafka.lag import GroupLag

    note(f"Kafka does not return the end offsets of the topic {topic}")
    goal: dict[int, int] | None = None
    while True:
        try:
            async with GroupLag(kafka, group, topic) as lag:
                while now := await lag.read():
                    if lost := words_of_lost(now):
                        raise MismatchError(lost, "`tallystream doctor` says where, and how to continue")
                    goal = {one.partition: one.end for one in now} if goal is None else goal
                    behind = still_behind(goal, now)
                    if behind is None:
                        return
                    note(behind)
                    await asyncio.sleep(POLL)
            note(f"the topic {topic} does not exist")
        except UnreachableError as exc:
            note(exc.message)
        await asyncio.sleep(POLL)


async def _readable(kafka: KafkaSettings, topic: str) -> bool:
    """Return whether the topic exists; if it does, its leaders have returned their offsets."""
    from tallystream.streams.kafka.reader import TopicReader

    async with TopicReader(kafka, topic) as reader:
        return reader.extent.exists


def words_of_lost(now: list[PartitionLag]) -> str | None:
    """Return a description of what was removed before it was counted, or None."""
    if not (lost := sum(one.lost for one in now)):
        return None
    return f"{lost:,} messages of the usage topic were removed before they were counted and are missing from the tables"


def still_behind(goal: dict[int, int], now: list[PartitionLag]) -> str | None:
    """Return a description of what is missing up to the goal's offsets, or None."""
    beyond = [one.partition for one in now if one.beyond]
    if beyond:
        return f"the worker's position is past the end of partition {beyond[0]}: the topic was recreated"
    missing = {
        one.partition: goal[one.partition] - max(one.committed if one.committed is not None else one.begin, one.begin)
        for one in now
    }
    late = {partition: number for partition, number in missing.items() if number > 0}
    if not late:
        return None
    return f"{sum(late.values()):,} messages on {len(late)} partitions are not counted yet"


# -- openai.days


async def _days(kafka: KafkaSettings, topics: Topics, find: Find, note: Note) -> None:
    """Wait until the days include all of OpenAI's records that existed at the start. Any poller maintains them."""
    if not find().pollers:
        return
    goal = (await _ends(kafka, [topics.openai_records.name], note)).get((topics.openai_records.name, 0), 0)
    while True:
        details = await _details(find().pollers.values())
        found = [detail.days_offset for detail in details if isinstance(detail, PollerStatus)]
        if max(found, default=-1) >= goal:
            return
        if found:
            note(f"{goal - max(found):,} of OpenAI's records are not in {topics.openai_days.name} yet")
        else:
            note("no poller reports the position of the days")
        await asyncio.sleep(POLL)


# -- reconciliation.days


async def _statements(kafka: KafkaSettings, topics: Topics, find: Find, note: Note) -> None:
    """Wait until the statements include what their sources held at the start. Any poller maintains them."""
    from tallystream.agents.reconciliation.config import sources

    if not find().pollers:
        return
    goal = await _ends(kafka, [topic.name for topic in sources(topics)], note)
    while True:
        details = await _details(find().pollers.values())
        found = [detail.reconciled for detail in details if isinstance(detail, PollerStatus)]
        left = [unread(reached, goal) if reached is not None else 0 for reached in found]
        if 0 in left:
            return
        if left:
            note(f"{min(left):,} records are not in {topics.reconciliation_days.name} yet")
        else:
            note("no poller reports the position of the statements")
        await asyncio.sleep(POLL)


def unread(reached: Iterable[ReadPosition], goal: Offsets) -> int:
    """Return how many records are left up to the goal's offsets."""
    at = {(one.topic, one.partition): one.offset for one in reached}
    return sum(max(0, end - at.get(where, 0)) for where, end in goal.items())


# -- the sink


async def _sinks(kafka: KafkaSettings, topics: Topics, find: Find, note: Note) -> None:
    """Wait until the active sink has read what its sources held at the start, and Port has all of it."""
    from tallystream.agents.port_sink.documents import feeds

    if not find().sinks:
        return
    goal = await _ends(kafka, [feed.topic for feed in feeds(topics)], note)
    seen: dict[str, set[str]] = {}
    while True:
        sinks = find().sinks
        details = zip(sinks, await _details(sinks.values()), strict=True)
        writing = [(name, detail) for name, detail in details if isinstance(detail, SinkStatus) and detail.active]
        seen = {name: seen.get(name, set()) for name, _ in writing}  # another sink starts with everything
        left = [_sink(name, detail, goal, seen[name]) for name, detail in writing]
        if None in left:
            return
        note(left[0] if left and left[0] else "no sink writes to Port yet; the sink's /readyz says why")
        await asyncio.sleep(POLL)


def _sink(name: str, status: SinkStatus, goal: Offsets, seen_without: set[str]) -> str | None:
    """Return a description of the work a sink has left up to the goal, or None."""
    if rows := unread(status.read, goal):
        return f"{name} has {rows:,} rows to read"
    return _left(name, status, SINK_HOLDS, seen_without)


async def _ends(kafka: KafkaSettings, topics: Iterable[str], note: Note) -> Offsets:
    """Return the end offsets of topics. Topics that do not exist are left out."""
    from tallystream.streams.kafka.follower import TopicFollower

    while True:
        try:
            async with TopicFollower(kafka, topics, {}) as tail:
                return tail.ends()
        except UnreachableError as exc:
            note(exc.message)
            await asyncio.sleep(POLL)


# -- ops ports


async def _details(ops_urls: Iterable[str]) -> list[Detail | None]:
    """Return the status of the components. None: one does not answer, or cannot report it yet."""
    from tallystream.supervisor.ops_client import read_report

    async def one(url: str) -> Detail | None:
        try:
            return (await read_report(url)).detail
        except UnreachableError:
            return None

    return await asyncio.gather(*map(one, ops_urls))


def _left(name: str, status: Detail, fields: Mapping[str, str], seen_without: set[str]) -> str | None:
    """Return a description of the first field that has not been seen at 0 yet."""
    for field_name, words in fields.items():
        if field_name not in seen_without:
            if (value := int(getattr(status, field_name))) > 0:
                return f"{name}: {value:,} {words}"
            seen_without.add(field_name)
    return None
