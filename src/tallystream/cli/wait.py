"""`tallystream wait --caught-up`: block until all that was acknowledged is in the tables."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tallystream.cli.common import (
    DataDir,
    GatewayOps,
    JsonOption,
    KafkaOption,
    cluster,
    console,
    emit_json,
    err_console,
    settings_from,
)
from tallystream.schemas.errors import Unreachable, UsageError

if TYPE_CHECKING:
    from tallystream.settings import Settings
    from tallystream.streams.kafka import KafkaSettings
    from tallystream.streams.lag import PartitionLag
    from tallystream.streams.topics import Topics

POLL = 0.1
GAUGES = {
    "tallystream_gateway_requests_in_progress": "requests being answered",
    "tallystream_gateway_quarantine_requests": "requests in quarantine",
    "tallystream_gateway_spool_messages": "messages in the spool",
}
"""What a gateway must have been seen without, in this order, for each can still feed the next."""


def wait(
    caught_up: Annotated[
        bool, typer.Option("--caught-up", help="Wait until all that was acknowledged is counted and can be read.")
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait at most.")] = 60.0,
    gateway_ops: GatewayOps = None,
    json: JsonOption = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Wait until the tables hold everything that gateways had acknowledged when this began; exit 3 when they do not.

    Caught up means: no gateway has anything in its spool, in quarantine or in the middle of an answer; after that, the
    worker has counted and published all that was on the usage topic; and the rows topic can be read.
    """
    from tallystream.cli.reading import run

    if not caught_up:
        raise UsageError("what to wait for?", "`tallystream wait --caught-up`")
    settings = settings_from(data_dir, kafka)
    reach = cluster(settings)
    urls = gateway_ops or []
    gateways = gateways_of(settings, urls)
    if not gateways:
        err_console.print(
            "No gateway is known here: spools are not looked at (--gateway-ops URL does that).", style="yellow"
        )
    began = time.monotonic()
    with err_console.status("catching up") as spinner:

        def show(behind: str) -> None:
            spinner.update(Text(f"catching up: {behind}"))

        find = partial(gateways_of, settings, urls)
        run(catch_up(reach, settings.topics(), find, seconds=timeout, show=show))
    seconds = round(time.monotonic() - began, 3)
    if json:
        emit_json({"caught_up": True, "seconds": seconds, "gateways": len(gateways)})
    else:
        console.print(f"caught up after {seconds:.1f} s")


def register(app: typer.Typer) -> None:
    """Add `wait`."""
    app.command("wait")(wait)


def look(name: str, ops_url: str, seen_without: set[str]) -> str | None:
    """Look at a gateway once; return what is still there in words, None when nothing is.

    What was acknowledged before the first look has left the gateway when each gauge has been seen at 0 once
    (`seen_without` remembers): what comes later is not waited for, or a busy gateway would never be done.
    """
    from tallystream.cli.http import request

    try:
        status, body = request("GET", f"{ops_url}/metrics", timeout=5.0)
    except Unreachable:
        return f"{name} does not answer"
    values = gauges(body.decode(errors="replace")) if status == 200 else {}
    for gauge, words in GAUGES.items():
        if gauge not in values:
            return f"{name} does not tell its {words}"
        if gauge not in seen_without:
            if values[gauge] > 0:
                return f"{name}: {values[gauge]:,.0f} {words}"
            seen_without.add(gauge)
    return None


_SAMPLE = re.compile(r"^(\w+)(?:\{[^}]*\})? (\S+)", re.MULTILINE)


def gauges(text: str) -> dict[str, float]:
    """Return the sum of each of our gauges in the text of a `/metrics` page; those it lacks are left out."""
    found: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        if name in GAUGES:
            found[name] = found.get(name, 0.0) + float(value)
    return found


def gateways_of(settings: Settings, urls: list[str]) -> dict[str, str]:
    """Return name and ops URL of the gateways of this machine, when they use the cluster in question, and of `urls`."""
    from tallystream.cli.common import read_run

    found = {url: url.rstrip("/") for url in urls}
    try:
        running = read_run(settings.data_dir)
    except Unreachable:
        return found
    if settings.kafka is None or running.kafka == settings.kafka:
        for one in running.components:
            if one.ops_url is not None and re.fullmatch(r"gateway(-\d+)?", one.name):
                found[one.name] = one.ops_url
    return found


async def catch_up(
    kafka: KafkaSettings,
    topics: Topics,
    find: Callable[[], dict[str, str]],
    *,
    seconds: float,
    show: Callable[[str], None],
) -> None:
    """Return when caught up. `find` gives the gateways' ops URLs, `show` gets what is still behind, in words.

    Raises:
        Unreachable: not within `seconds`; the message says what was still behind.

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
    except TimeoutError:
        raise Unreachable(
            f"not caught up within {seconds:g} s: {behind}",
            "`tallystream status` shows whether everything runs; --timeout waits longer",
        ) from None


async def _gateways(find: Callable[[], dict[str, str]], note: Callable[[str], None]) -> None:
    """Wait until each gateway has nothing left. One that is restarted meanwhile has another URL, and the same spool."""
    urls = find()
    seen: dict[str, set[str]] = {name: set() for name in urls}
    for name, without in seen.items():
        while True:
            behind = await asyncio.to_thread(look, name, urls[name], without) if name in urls else f"{name} is gone"
            if behind is None:
                break
            note(behind)
            await asyncio.sleep(POLL)
            urls = find()


async def _worker(kafka: KafkaSettings, topics: Topics, note: Callable[[str], None]) -> None:
    """Wait until the worker's positions have passed the ends the usage topic has now; then the rows are published."""
    from tallystream.streams.lag import GroupLag

    note("Kafka does not tell the end of the usage topic")
    goal: dict[int, int] | None = None
    while True:
        try:
            async with GroupLag(kafka, topics.worker_app, topics.usage.name) as lag:
                while now := await lag.read():
                    goal = {one.partition: one.end for one in now} if goal is None else goal
                    behind = still_behind(goal, now)
                    if behind is None:
                        break
                    note(behind)
                    await asyncio.sleep(POLL)
            if not now:
                note(f"there is no topic {topics.usage.name}")
            elif await _readable(kafka, topics.session_hour_rows.name):
                return
            else:
                note(f"there is no topic {topics.session_hour_rows.name}")
        except Unreachable as exc:
            note(exc.message)
        await asyncio.sleep(POLL)


async def _readable(kafka: KafkaSettings, topic: str) -> bool:
    """Return whether the topic is there; its leaders have told their offsets then."""
    from tallystream.streams.compacted import TopicReader

    async with TopicReader(kafka, topic) as reader:
        return reader.extent.exists


def still_behind(goal: dict[int, int], now: list[PartitionLag]) -> str | None:
    """Return in words what is missing up to the goal's offsets, None when nothing is."""
    beyond = [one.partition for one in now if one.beyond]
    if beyond:
        return f"the worker's position is past the end of partition {beyond[0]}: the usage topic was made anew"
    missing = {
        one.partition: goal[one.partition] - max(one.committed if one.committed is not None else one.begin, one.begin)
        for one in now
    }
    late = {partition: number for partition, number in missing.items() if number > 0}
    if not late:
        return None
    return f"{sum(late.values()):,} messages on {len(late)} partitions are not counted yet"
