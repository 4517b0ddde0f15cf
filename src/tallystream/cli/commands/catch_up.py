"""What `tallystream wait --caught-up` waits for, one component after the other in the order things flow.

Each is waited for up to where its source ended when its turn came: what comes later is not waited for, or a busy
deployment would never be done.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tallystream.schemas.errors import UnreachableError

if TYPE_CHECKING:
    from tallystream.settings.settings import Settings
    from tallystream.streams.kafka.lag import PartitionLag
    from tallystream.streams.kafka.settings import KafkaSettings
    from tallystream.streams.kafka.topics import Topics

POLL = 0.1
GAUGES = {
    "tallystream_gateway_requests_in_progress": "requests being answered",
    "tallystream_gateway_quarantine_requests": "requests in quarantine",
    "tallystream_gateway_spool_messages": "messages in the spool",
}
"""What a gateway must have been seen without, in this order, for each can still feed the next."""
DAYS_OFFSET = "tallystream_openai_billed_offset"
SINK_ACTIVE, SINK_READ = "tallystream_port_sink_active", "tallystream_port_source_offset"
SINK_GAUGES = {
    "tallystream_port_sweep_running": "comparison of everything with what Port has",
    "tallystream_port_repetitions_due": "requests of unknown fate to be repeated",
    "tallystream_port_backlog_documents": "changed documents",
    "tallystream_port_backlog_entities": "entities on their way to Port",
}
"""The same of the sink that writes, once it has read its sources."""
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
    """Return the components of this machine, when they use the cluster in question, and those of the URLs."""
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
    """Return when caught up. `find` says where components are, `show` gets what is still behind, in words.

    Raises:
        UnreachableError: not within `seconds`; the message says what was still behind.

    """
    behind = "nothing has been looked at"

    def note(what: str) -> None:
        nonlocal behind
        behind = what
        show(what)

    try:
        async with asyncio.timeout(seconds):
            await _gateways(find, note)
            await _worker(kafka, topics, note)
            await _days(kafka, topics, find, note)
            await _sinks(kafka, topics, find, note)
    except TimeoutError:
        raise UnreachableError(
            f"not caught up within {seconds:g} s: {behind}",
            "`tallystream status` shows whether everything runs; --timeout waits longer",
        ) from None


# -- gateways


def look(name: str, ops_url: str, seen_without: set[str]) -> str | None:
    """Look at a gateway once; return what is still there in words, None when nothing is.

    What was acknowledged before the first look has left the gateway when each gauge has been seen at 0 once
    (`seen_without` remembers).
    """
    text = page(ops_url)
    return f"{name} does not answer" if text is None else _left(name, text, GAUGES, seen_without)


async def _gateways(find: Find, note: Note) -> None:
    """Wait until each gateway has nothing left. One that is restarted meanwhile has another URL, and the same spool."""
    urls = find().gateways
    seen: dict[str, set[str]] = {name: set() for name in urls}
    for name, without in seen.items():
        while True:
            behind = await asyncio.to_thread(look, name, urls[name], without) if name in urls else f"{name} is gone"
            if behind is None:
                break
            note(behind)
            await asyncio.sleep(POLL)
            urls = find().gateways


# -- the worker


async def _worker(kafka: KafkaSettings, topics: Topics, note: Note) -> None:
    """Wait until the worker has passed the ends its topics have now; then the rows are published.

    Calls come before usage, which they become; the worker's position there does not pass a call that is held.
    """
    await _passed(kafka, topics.worker_app, topics.calls.name, note)
    while True:
        await _passed(kafka, topics.worker_app, topics.usage.name, note)
        try:
            if await _readable(kafka, topics.session_hour_rows.name):
                return
            note(f"there is no topic {topics.session_hour_rows.name}")
        except UnreachableError as exc:
            note(exc.message)
        await asyncio.sleep(POLL)


async def _passed(kafka: KafkaSettings, group: str, topic: str, note: Note) -> None:
    """Wait until a group's positions have passed the ends that a topic has now."""
    from tallystream.streams.kafka.lag import GroupLag

    note(f"Kafka does not tell the end of the topic {topic}")
    goal: dict[int, int] | None = None
    while True:
        try:
            async with GroupLag(kafka, group, topic) as lag:
                while now := await lag.read():
                    goal = {one.partition: one.end for one in now} if goal is None else goal
                    behind = still_behind(goal, now)
                    if behind is None:
                        return
                    note(behind)
                    await asyncio.sleep(POLL)
            note(f"there is no topic {topic}")
        except UnreachableError as exc:
            note(exc.message)
        await asyncio.sleep(POLL)


async def _readable(kafka: KafkaSettings, topic: str) -> bool:
    """Return whether the topic is there; its leaders have told their offsets then."""
    from tallystream.streams.kafka.reader import TopicReader

    async with TopicReader(kafka, topic) as reader:
        return reader.extent.exists


def still_behind(goal: dict[int, int], now: list[PartitionLag]) -> str | None:
    """Return in words what is missing up to the goal's offsets, None when nothing is."""
    beyond = [one.partition for one in now if one.beyond]
    if beyond:
        return f"the worker's position is past the end of partition {beyond[0]}: the topic was made anew"
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
    """Wait until the days say what OpenAI's records did when this began. Any poller's agent keeps them."""
    if not find().pollers:
        return
    goal = (await _ends(kafka, [topics.openai_records.name], note)).get((topics.openai_records.name, 0), 0)
    while True:
        pages = await asyncio.gather(*(asyncio.to_thread(page, url) for url in find().pollers.values()))
        found = [offset for text in pages if text for offset in samples(text, DAYS_OFFSET).values()]
        if max(found, default=-1) >= goal:
            return
        if found:
            note(f"{goal - max(found):,.0f} of OpenAI's records are not in {topics.openai_days.name} yet")
        else:
            note("no poller tells how far the days are")
        await asyncio.sleep(POLL)


# -- the sink


async def _sinks(kafka: KafkaSettings, topics: Topics, find: Find, note: Note) -> None:
    """Wait until the sink that writes has read what its sources held when this began, and Port has all of it."""
    from tallystream.agents.port_sink.documents import feeds

    if not find().sinks:
        return
    goal = await _ends(kafka, [feed.topic for feed in feeds(topics)], note)
    seen: dict[str, set[str]] = {}
    while True:
        sinks = find().sinks
        texts = await asyncio.gather(*(asyncio.to_thread(page, url) for url in sinks.values()))
        writing = [
            (name, text)
            for name, text in zip(sinks, texts, strict=True)
            if text is not None and sum(samples(text, SINK_ACTIVE).values()) > 0
        ]
        seen = {name: seen.get(name, set()) for name, _ in writing}  # another one begins with everything
        left = [_sink(name, text, goal, seen[name]) for name, text in writing]
        if None in left:
            return
        note(left[0] if left and left[0] else "no sink writes to Port yet; its /readyz says why")
        await asyncio.sleep(POLL)


def _sink(name: str, text: str, goal: Offsets, seen_without: set[str]) -> str | None:
    """Return what a sink has before it, in words; None when nothing is left up to the goal."""
    read = samples(text, SINK_READ)
    at = {(labels["topic"], int(labels["partition"])): offset for labels, offset in map(_labelled, read.items())}
    if unread := sum(max(0, end - int(at.get(where, 0))) for where, end in goal.items()):
        return f"{name} has {unread:,} rows to read"
    return _left(name, text, SINK_GAUGES, seen_without)


async def _ends(kafka: KafkaSettings, topics: Iterable[str], note: Note) -> Offsets:
    """Return where topics end; those that do not exist are left out."""
    from tallystream.streams.kafka.follower import Tail

    while True:
        try:
            async with Tail(kafka, topics, {}) as tail:
                return tail.ends()
        except UnreachableError as exc:
            note(exc.message)
            await asyncio.sleep(POLL)


# -- ops ports


def page(ops_url: str) -> str | None:
    """Return a component's `/metrics`; None: it does not answer."""
    from tallystream.cli.http_client import request

    try:
        status, body = request("GET", f"{ops_url}/metrics", timeout=5.0)
    except UnreachableError:
        return None
    return body.decode(errors="replace") if status == 200 else ""


_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def samples(text: str, name: str) -> dict[str, float]:
    """Return a metric's samples on a `/metrics` page by their labels' text."""
    return {labels: float(value) for found, labels, value in _SAMPLE.findall(text) if found == name}


def _labelled(sample: tuple[str, float]) -> tuple[dict[str, str], float]:
    return dict(_LABEL.findall(sample[0])), sample[1]


def _left(name: str, text: str, gauges: Mapping[str, str], seen_without: set[str]) -> str | None:
    """Return the first gauge that has not been seen at 0 yet, in words."""
    for gauge, words in gauges.items():
        found = samples(text, gauge)
        if not found:
            return f"{name} does not tell its {words}"
        if gauge not in seen_without:
            if (value := sum(found.values())) > 0:
                return f"{name}: {value:,.0f} {words}"
            seen_without.add(gauge)
    return None
