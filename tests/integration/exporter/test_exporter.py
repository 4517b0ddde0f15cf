"""The exporter as a process on real Kafka: its lag equals that of Kafka's own tool, and its counters never decrease."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from tests.support.exporter import by, exporter, of
from tests.support.kafka_tools import describe_group
from tests.support.usage import Session, Truth, event, fleet
from tests.support.waiting import eventually
from tests.support.worker import producing, read, worker

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka


async def send(kafka: KafkaSettings, topics: Topics, messages: list[tuple[bytes, bytes]]) -> None:
    async with producing(kafka) as producer:
        for future in [await producer.send(topics.usage.name, value, key=key) for key, value in messages]:
            await future


async def test_lag_equals_kafkas_own_tool_while_the_worker_is_dead(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    topics, rng, now = Topics(prefix, 3), random.Random(1), datetime.now(UTC)
    await ensure(kafka, topics.all())
    group, usage = topics.worker_app, topics.usage.name
    messages = [(one.key, one.message(events)) for one, events in fleet(rng, 40, now)]
    half = len(messages) // 2
    with worker(kafka, topics, tmp_path / "w") as folding, exporter(kafka, topics, tmp_path / "x") as seen:
        everything = of(seen.samples(), "tallystream_exporter_consumer_lag_records", group=group, topic=usage)
        assert everything == 0
        await send(kafka, topics, messages[:half])
        # Before the first commit all records are lag; Kafka's tool does not report such a group.
        eventually(
            lambda: of(seen.samples(), "tallystream_exporter_consumer_lag_records", group=group) == half,
            "all of it is lag",
        )
        folding.start()
        folding.ready()

        def idle() -> bool:
            now = seen.samples()
            return not of(now, "tallystream_exporter_consumer_lag_records", group=group) and bool(
                of(now, "tallystream_exporter_newest_row_timestamp_seconds")
            )

        eventually(idle, "no lag")
        calm = seen.samples()
        assert of(calm, "tallystream_exporter_consumer_lag_seconds", group=group) == 0
        assert of(calm, "tallystream_exporter_freshness_seconds") == 0
        folding.kill()
        before = time.time()
        await send(kafka, topics, messages[half:])
        after = time.time()
        waiting = len(messages) - half
        eventually(
            lambda: of(seen.samples(), "tallystream_exporter_consumer_lag_records", group=group) == waiting,
            "the lag is seen",
        )
        asked = time.time()
        samples = seen.samples()
        answered = time.time()
        judge = describe_group(kafka.bootstrap, group)

        assert sum(one.lag for (topic, _), one in judge.items() if topic == usage) == waiting
        assert {topic for topic, _ in judge} == {usage, topics.calls.name}
        for (topic, partition), one in judge.items():
            ours = {"topic": topic, "partition": str(partition)}
            assert of(samples, "tallystream_exporter_consumer_lag_records", group=group, **ours) == one.lag
            assert of(samples, "tallystream_exporter_consumer_offset", group=group, **ours) == one.committed
            assert of(samples, "tallystream_exporter_topic_end_offset", **ours) == one.end
            assert of(samples, "kafka_consumergroup_lag", consumergroup=group, **ours) == one.lag
            assert of(samples, "kafka_consumergroup_current_offset", consumergroup=group, **ours) == one.committed
            assert of(samples, "kafka_consumergroup_group_lag", group=group, **ours) == one.lag
        assert of(samples, "kafka_consumergroup_lag_sum", consumergroup=group, topic=usage) == waiting

        # The lag in seconds is the age of the oldest waiting record, by its own timestamp.
        seconds = by(samples, "tallystream_exporter_consumer_lag_seconds", "partition", group=group, topic=usage)
        assert max(seconds.values()) <= answered - before + 1
        assert max(seconds.values()) >= asked - after - 1
        oldest = {
            record.partition: record.timestamp
            for record in reversed(await read(kafka, usage))
            if record.offset >= judge[usage, record.partition].committed
        }
        for partition, stamp in oldest.items():
            assert asked - stamp / 1000 - 1 <= seconds[str(partition)] <= answered - stamp / 1000 + 1
        assert of(samples, "kafka_consumergroup_group_max_lag_seconds", group=group) == max(seconds.values())
        assert of(samples, "tallystream_exporter_freshness_seconds") == pytest.approx(max(seconds.values()), abs=0.5)

        folding.start()
        folding.ready()
        eventually(idle, "caught up again")
        assert of(seen.samples(), "tallystream_exporter_consumer_lag_seconds") == 0
        assert seen.stop() == 0


async def test_counters_equal_the_truth_and_survive_restarts_and_retention(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    topics, rng, now = Topics(prefix, 3), random.Random(2), datetime.now(UTC)
    await ensure(kafka, topics.all())
    truth, messages = Truth(), []
    for session, events in fleet(rng, 60, now):
        truth.add(session, events, now)
        messages.append((session.key, session.message(events)))
    priced = Session("codex-7f3a", "later", "platform", "acme/app")
    one = [event(rng, now - timedelta(seconds=1), model="gpt-5-codex")]
    requests = sum(line.counts["requests"] for line in truth.lines.values())
    with worker(kafka, topics, tmp_path / "w") as folding:
        folding.start()
        folding.ready()
        with exporter(kafka, topics, tmp_path / "x") as first:
            sent = 0
            for start in range(0, len(messages), len(messages) // 3 + 1):
                batch = messages[start : start + len(messages) // 3 + 1]
                sent += len(batch)
                await send(kafka, topics, batch)
                if sent < len(messages):
                    first.kill()  # during the load, with rows in flight
                    first.start()
                    first.ready()
            eventually(lambda: of(first.samples(), "tallystream_exporter_requests_total") == requests, "all is counted")
            before = first.samples()
            first.kill()

        def wanted(field: str, model: str) -> int:
            return sum(line.counts[field] for (_, _, found, _), line in truth.lines.items() if found == model)

        for model in {found for _, _, found, _ in truth.lines}:
            for kind in ("input_uncached", "cache_read", "cache_write_5m", "output"):
                assert of(before, "tallystream_exporter_tokens_total", model=model, kind=kind) == wanted(kind, model), (
                    model,
                    kind,
                )
            cost = sum((line.cost for (_, _, found, _), line in truth.lines.items() if found == model), Decimal(0))
            assert of(before, "tallystream_exporter_cost_usd_total", model=model) == pytest.approx(
                float(cost), rel=1e-12
            )
            unpriced = sum(line.unpriced for (_, _, found, _), line in truth.lines.items() if found == model)
            assert of(before, "tallystream_exporter_requests_without_price_total", model=model) == unpriced
        teams = {team for _, _, team in truth.hours}
        for team in teams:
            cost = sum((line.cost for (_, _, found), line in truth.hours.items() if found == team), Decimal(0))
            shown_cost = of(before, "tallystream_exporter_team_cost_usd_total", team=team or "none")
            assert shown_cost == pytest.approx(float(cost), rel=1e-12)
        total = sum((line.cost for line in truth.lines.values()), Decimal(0))
        assert of(before, "tallystream_exporter_cost_usd_total") == pytest.approx(float(total), rel=1e-9)

        # Retention has removed every row; the counters keep their values and continue from there.
        await tombstone_all(kafka, topics)
        with exporter(kafka, topics, tmp_path / "x") as second:
            counters = {key: value for key, value in before.items() if key[0].endswith("_total") and ours(key[0])}
            found = second.samples()
            assert {key: found.get(key) for key in counters} == counters
            await send(kafka, topics, [(priced.key, priced.message(one))])
            eventually(
                lambda: of(second.samples(), "tallystream_exporter_requests_total") == requests + 1, "it goes on"
            )
            after = second.samples()
            assert all(after[key] >= value for key, value in counters.items())


def ours(name: str) -> bool:
    return name.startswith("tallystream_") and not name.startswith("tallystream_exporter_")


async def tombstone_all(kafka: KafkaSettings, topics: Topics) -> None:
    records = await read(kafka, topics.session_hour_rows.name)
    async with producing(kafka) as producer:
        for key, partition in {record.key: record.partition for record in records}.items():
            await producer.send_and_wait(topics.session_hour_rows.name, None, key=key, partition=partition)
