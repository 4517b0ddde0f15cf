"""The worker process on real Kafka: the rows must equal what was sent, to the token and the picodollar."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.support.usage import COUNTS, HOUR, Event, Line, Session, Truth, event, fleet, ns
from tests.support.waiting import ANSWER, until
from tests.support.worker import Worker, newest, producing, read, shown, worker

from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.rows import HourCost, SessionHourCost
from tallystream.schemas.usage import UsageBatch
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]
LAPTOP = Session("codex-7f3a", "one", "platform", "acme/app")


async def send(kafka: KafkaSettings, topics: Topics, messages: list[tuple[bytes, bytes]]) -> None:
    """Produce usage messages; each session's go to one partition, as its key says."""
    async with producing(kafka) as producer:
        for future in [await producer.send(topics.usage.name, value, key=key) for key, value in messages]:
            await future


def lines_of(rows: dict[bytes, dict[str, Any]]) -> dict[tuple[str, str, str, str | None], Line]:
    """Add the buckets of the rows up the way the truth is."""
    lines: dict[tuple[str, str, str, str | None], Line] = defaultdict(Line)
    for row in rows.values():
        for bucket in row["buckets"]:
            add(lines[row["session_id"], row["hour"], bucket["model"], bucket["service_tier"]], bucket)
    return lines


def add(line: Line, sums: dict[str, Any]) -> None:
    for name in COUNTS:
        line.counts[name] += sums[name]
    line.cost += Decimal(sums["cost_usd"] or 0)
    line.unpriced += sums["unpriced_requests"]
    line.reported += Decimal(sums["reported_cost_usd"] or 0)
    line.late += sums["late_events"]


async def rows_with(kafka: KafkaSettings, topics: Topics, requests: int) -> dict[bytes, dict[str, Any]]:
    """Return the session-hour rows once so many requests are in them."""
    counted = 0

    async def complete() -> dict[bytes, dict[str, Any]] | None:
        nonlocal counted
        rows = await newest(kafka, topics.session_hour_rows.name)
        counted = sum(b["requests"] for row in rows.values() for b in row["buckets"])
        return rows if counted >= requests else None

    return dict(await until(complete, lambda: f"{counted} of {requests} requests are in the rows"))


async def counted_up_to_the_end(running: Worker) -> None:
    """Wait until the worker has acknowledged all there is."""
    wanted = sum(1 for _ in await read(running.kafka, running.topics.usage.name))

    async def caught_up() -> bool:
        if running.metric("tallystream_worker_partitions") != running.topics.partitions:
            return False
        page = running.get("/metrics")[1].splitlines()
        lags = [line for line in page if line.startswith("tallystream_worker_lag_messages{")]
        done = sum((await applied(running)).values())
        return done >= wanted and bool(lags) and all(line.endswith(" 0.0") for line in lags)

    await until(caught_up, lambda: f"all is counted:\n{running.said()[-2000:]}")


async def applied(running: Worker) -> dict[int, int]:
    """Return the positions the changelog holds: the last one of each partition."""
    positions: dict[int, int] = {}
    for record in await read(running.kafka, running.topics.session_hours_changelog.name):
        if record.key == b"\0position":
            positions[record.partition] = int(record.value.split()[0])
    return positions


async def test_rows_equal_the_truth_despite_kills_and_replays(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    topics, rng, now = Topics(prefix, 4), random.Random(11), datetime.now(UTC)
    await ensure(kafka, topics.all())
    truth, messages = Truth(), []
    for session, events in fleet(rng, 120, now):
        truth.add(session, events, now)
        messages.append((session.key, session.message(events)))
    assert truth.copies > 100
    assert any(line.late for line in truth.lines.values())
    with worker(kafka, topics, tmp_path) as running:
        running.start()
        running.ready()
        step = len(messages) // 3 + 1
        for start in range(0, len(messages), step):
            sending = asyncio.create_task(send(kafka, topics, messages[start : start + step]))
            while not running.metric("tallystream_worker_usage_events_total"):  # noqa: ASYNC110 - another process counts
                await asyncio.sleep(0)
            running.kill()  # during the load
            await sending
            running.start()
            running.ready()
        rows = await rows_with(kafka, topics, len(truth.events))
        await counted_up_to_the_end(running)
        rows = await newest(kafka, topics.session_hour_rows.name)
        assert lines_of(rows) == truth.lines, "rows and truth differ"
        assert sum(row["duplicates"] for row in rows.values()) == truth.copies
        for key, row in rows.items():
            SessionHourCost.model_validate(row, strict=True)
            assert key.decode().endswith(row["hour"])

        hours: dict[tuple[str, str, str | None], Line] = defaultdict(Line)
        agents: dict[tuple[str, str, str | None, str | None], Line] = defaultdict(Line)
        for row in (await newest(kafka, topics.hour_rows.name)).values():
            HourCost.model_validate(row, strict=True)
            add(hours[row["hour"], row["model"], row["team"]], row)
            for part in row["agents"]:
                add(agents[row["hour"], row["model"], row["team"], part["agent"]], part)
        assert hours == truth.hours, "partials of the hours do not add up"
        assert agents == truth.agents, "their parts by agent do not add up"

        # the same bodies again: only the number of copies grows
        await send(kafka, topics, messages)
        await counted_up_to_the_end(running)
        again = await newest(kafka, topics.session_hour_rows.name)
        assert lines_of(again) == truth.lines
        sent = sum(len(UsageBatch.model_validate_json(value).events) for _, value in messages)
        assert sum(row["duplicates"] for row in again.values()) == truth.copies + sent
        assert running.stop() == 0


async def test_handover_between_workers_loses_and_doubles_nothing(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    topics, rng, now = Topics(prefix, 4), random.Random(12), datetime.now(UTC)
    await ensure(kafka, topics.all())
    truth, messages = Truth(), []
    for session, events in fleet(rng, 60, now):
        truth.add(session, events, now)
        messages.append((session.key, session.message(events)))
    third = len(messages) // 3
    with worker(kafka, topics, tmp_path / "a") as first, worker(kafka, topics, tmp_path / "b") as second:
        first.start(TALLYSTREAM_WORKER_MEMBERSHIP="dynamic")
        first.ready()
        await send(kafka, topics, messages[:third])
        second.instance = "w2"
        second.start(TALLYSTREAM_WORKER_MEMBERSHIP="dynamic")
        await send(kafka, topics, messages[third : 2 * third])  # while partitions move
        await until(lambda: second.metric("tallystream_worker_partitions") == 2, "the second worker has its share")
        await send(kafka, topics, messages[2 * third :])
        first.kill()
        second.ready()
        await counted_up_to_the_end(second)
        rows = await newest(kafka, topics.session_hour_rows.name)
        assert lines_of(rows) == truth.lines
        hours: dict[tuple[str, str, str | None], Line] = defaultdict(Line)
        for row in (await newest(kafka, topics.hour_rows.name)).values():
            add(hours[row["hour"], row["model"], row["team"]], row)
        assert hours == truth.hours
        assert second.stop() == 0


async def test_uncountable_records_become_dead_letters_without_stopping_the_worker(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    topics, rng, now = Topics(prefix, 2), random.Random(3), datetime.now(UTC)
    await ensure(kafka, topics.all())
    good, late, early, huge = (event(rng, at) for at in (now, now - 200 * HOUR, now + 25 * HOUR, now))
    huge["output"] = 2**52
    unfit: Event = {**event(rng, now), "prompt": "secret plan"}
    year_2200 = event(rng, datetime(2200, 1, 1, tzinfo=UTC))
    poison = [
        (LAPTOP.key, b"{not json: secret plan"),
        (LAPTOP.key, None),
        (b"other|key", LAPTOP.message([event(rng, now)])),
        (LAPTOP.key, orjson.dumps({**orjson.loads(LAPTOP.message([good])), "prompt": "secret plan"})),
        (LAPTOP.key, LAPTOP.message([late, early, huge, unfit, year_2200, good])),
    ]
    with worker(kafka, topics, tmp_path) as running:
        running.start()
        async with producing(kafka) as producer:
            for key, value in poison:
                await producer.send_and_wait(topics.usage.name, value, key=key, partition=0)
        running.ready()
        await counted_up_to_the_end(running)
        rows = await rows_with(kafka, topics, 1)
        records = await read(kafka, topics.deadletters.name)
        assert len(rows) == 1
        letters = {record.key.decode(): DeadLetter.model_validate_json(record.value) for record in records}
        assert {key: letter.reason for key, letter in letters.items()} == {
            **{f"usage|0|{offset}|0": Reason.INVALID_MESSAGE for offset in range(4)},
            "usage|0|4|0": Reason.TOO_LATE,
            "usage|0|4|1": Reason.FROM_THE_FUTURE,
            "usage|0|4|2": Reason.INVALID_MESSAGE,
            "usage|0|4|3": Reason.INVALID_MESSAGE,
            "usage|0|4|4": Reason.FROM_THE_FUTURE,
        }
        assert not any(b"secret" in record.value for record in records)
        assert dict(records[0].headers)["schema"] == b"dead-letter/1"
        kept = UsageBatch.model_validate(letters["usage|0|4|0"].record)
        assert kept.events[0].event_id == late["event_id"]
        assert kept.attribution.team == "platform"
        assert running.metric('tallystream_worker_dead_letters_total{reason="too_late"}') >= 1
        assert running.metric("tallystream_worker_usage_events_total") == 1
        assert "secret" not in running.said()


async def test_unpriced_requests_are_counted_and_listed_without_a_price(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    topics, rng, now = Topics(prefix, 1), random.Random(4), datetime.now(UTC)
    await ensure(kafka, topics.all())
    events = [event(rng, now, "house-model-9", "default"), event(rng, now, "gpt-5-codex", "warp")]
    prices = tmp_path / "prices.toml"
    prices.write_text(
        '[[price]]\nprovider = "openai"\nmodel = "house-model-9"\ninput = "1"\noutput = "2"\ncache_read = "0"\n'
    )
    with worker(kafka, topics, tmp_path) as running:
        running.start()
        await send(kafka, topics, [(LAPTOP.key, LAPTOP.message(events))])
        (row,) = (await rows_with(kafka, topics, 2)).values()
        assert [(b["cost_usd"], b["unpriced_requests"]) for b in row["buckets"]] == [(None, 1), (None, 1)]
        running.ready()
        assert running.metric(
            'tallystream_worker_unpriced_requests_total{model="gpt-5-codex",provider="openai",tier="warp"}'
        )
        assert "the book does not know this model" in running.said()
        assert running.stop() == 0
        # with own prices from the next request on, in a separate bucket
        running.start(TALLYSTREAM_PRICES=str(prices))
        more = event(rng, now, "house-model-9", "default")
        await send(kafka, topics, [(LAPTOP.key, LAPTOP.message([more]))])
        rows = await rows_with(kafka, topics, 3)
        cost = Decimal(more["input_uncached"] + more["cache_write_5m"] + 2 * more["output"]) / 10**6
        priced = [b for r in rows.values() for b in r["buckets"] if b["cost_usd"]]
        assert [Decimal(b["cost_usd"]) for b in priced] == [cost]
        assert priced[0]["book"] not in {b["book"] for b in row["buckets"]}


async def test_closed_hour_is_not_reopened(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    topics, rng, now = Topics(prefix, 1), random.Random(6), datetime.now(UTC)
    await ensure(kafka, topics.all())
    old, new = event(rng, now - 3 * timedelta(days=1)), event(rng, now)
    with worker(kafka, topics, tmp_path) as running:
        running.start()
        await send(kafka, topics, [(LAPTOP.key, LAPTOP.message([old, new]))])
        await rows_with(kafka, topics, 2)
        assert running.stop() == 0
        running.start(TALLYSTREAM_LATENESS="P1D")  # the next message closes older hours
        await send(kafka, topics, [(LAPTOP.key, LAPTOP.message([event(rng, now)]))])
        await rows_with(kafka, topics, 3)

        async def tombstones() -> int:
            log = await read(kafka, topics.session_hours_changelog.name)
            return sum(record.value is None for record in log)

        await until(tombstones, "the old hour is removed from the state")
        assert running.stop() == 0
        running.start()  # with a week again the hour would be in time, but its ids are gone
        await send(kafka, topics, [(LAPTOP.key, LAPTOP.message([old, event(rng, now)]))])
        await rows_with(kafka, topics, 4)
        await counted_up_to_the_end(running)  # other rows of the same group may come after those of sessions
        rows = await newest(kafka, topics.session_hour_rows.name)
        letters = [DeadLetter.model_validate_json(r.value) for r in await read(kafka, topics.deadletters.name)]
        assert [letter.reason for letter in letters] == [Reason.CLOSED]
        requests = {row["hour"]: sum(b["requests"] for b in row["buckets"]) for row in rows.values()}
        assert sorted(requests.values()) == [1, 3], shown(requests)
        assert {row["hour"] for row in (await newest(kafka, topics.hour_rows.name)).values()} == set(requests)


async def test_second_worker_with_the_same_name_is_refused(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    topics = Topics(prefix, 1)
    await ensure(kafka, topics.all())
    with worker(kafka, topics, tmp_path) as running, worker(kafka, topics, tmp_path) as second:
        running.start()
        running.ready()
        assert running.get("/healthz")[0] == 200
        second.start()
        assert second.process is not None
        assert second.process.wait(ANSWER) == 2
        assert "give each worker a different --instance name" in second.said()
        assert running.stop() == 0


def test_generated_events_match_the_schema() -> None:
    now = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
    for session, events in fleet(random.Random(1), 30, now):
        batch = UsageBatch.model_validate_json(session.message(events), strict=True)
        assert all(e.occurred_at <= ns(now) for e in batch.events)
