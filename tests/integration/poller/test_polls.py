"""The sandbox's OpenAI, the poller and real Kafka: the topic must equal OpenAI's data, whatever fails in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest
from tests.support.openai_rig import DAY, NOON, TODAY, Rig, ask, day, only, rig
from tests.support.topics import set_topic_config
from tests.support.waiting import until

from tallystream.sandbox.openai_data import UsageCell
from tallystream.schemas.openai import CURRENT, OpenAIRecord, cents_to_usd
from tallystream.streams.kafka.admin import administering
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.poller.errors import FailureReason
from tallystream.streams.poller.resources import Resource, builtin

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]
COSTS, USAGE, MODELS, BILLING = "/organization/costs", "/usage", "/models", "/dashboard/billing/usage"
COMPLETIONS = "/organization/usage/completions"


@pytest.fixture
async def openai(kafka: KafkaSettings, prefix: str) -> AsyncIterator[Rig]:
    async with rig(kafka, prefix) as one:
        yield one


def cells(one: Rig, offset: int) -> list[UsageCell]:
    """The usage of a day, from the source itself and not through an endpoint."""
    return [cell for cell in one.sandbox.source.day(TODAY + offset) if cell.at < NOON]


async def test_full_poll_equals_openais_data(openai: Rig) -> None:
    result = await openai.poll()
    assert result.failures == {}
    rows = await openai.rows()
    days = [day(-n) for n in range(31)]
    assert set(rows) == {(MODELS, CURRENT)} | {
        (resource.name, one) for resource in builtin() if resource.bucket for one in days
    }
    # Compared entry by entry with another client, which reads everything in one request.
    for resource in builtin():
        if resource.path.startswith("/organization/"):
            start, groups = (TODAY - 30) * DAY, resource.params["group_by"]
            asked = [("start_time", str(start)), ("limit", "31"), *(("group_by", group) for group in groups)]
            answer = await ask(openai.sandbox, resource.path, asked)
            assert [rows[resource.name, one] for one in reversed(days)] == [one["results"] for one in answer["data"]]
    assert rows[MODELS, CURRENT] == (await ask(openai.sandbox, MODELS, []))["data"]
    for one in days:
        assert rows[USAGE, one] == (await ask(openai.sandbox, USAGE, [("date", one)]))["data"]
    # And compared with sums from the source, without an endpoint.
    for offset in range(-30, 1):
        happened = cells(openai, offset)
        spent = sum((dollars for cell in happened for dollars in cell.costs.values()), Decimal(0))
        assert sum(row["amount"]["value"] for row in rows[COSTS, day(offset)]) == spent
        billed = [line["cost"] for row in rows[BILLING, day(offset)] for line in row["line_items"]]
        assert cents_to_usd(sum(billed, Decimal(0))) == spent
        for field in ("input_tokens", "output_tokens", "num_model_requests"):
            used = sum(cell.counts[field] for cell in happened if cell.kind == "completions")
            assert sum(row[field] for row in rows[COMPLETIONS, day(offset)]) == used


async def test_money_in_the_topic_is_exact_text(openai: Rig) -> None:
    await openai.poll(resources=only(COSTS))
    record = next(one for one in (await openai.records()).values() if one.rows)
    assert "[].amount.value" in record.decimals
    assert all(isinstance(row["amount"]["value"], str | int) for row in record.rows)
    for _, value in await openai.messages(openai.topics.openai_records.name):
        assert float not in {type(leaf) for leaf in leaves(OpenAIRecord.model_validate_json(value).rows)}


def leaves(value: object) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]


async def test_restart_polls_only_what_may_still_change(openai: Rig) -> None:
    first = await openai.poll(resources=only(COSTS, USAGE, MODELS))
    openai.sandbox.seen.clear()
    second = await openai.poll(resources=only(COSTS, USAGE, MODELS))
    assert first.published == 31 + 31 + 1
    assert (second.published, second.unchanged) == (0, 8 + 3 + 1)
    asked = [one["query"] for one in openai.sandbox.requests() if one["path"].endswith(USAGE)]
    assert asked == [f"date={day(offset)}" for offset in (-2, -1, 0)]
    assert len(await openai.messages(openai.topics.openai_records.name)) == first.published


async def test_restated_day_replaces_the_earlier_one(openai: Rig) -> None:
    await openai.poll(resources=only(COSTS, USAGE))
    before = await openai.rows()
    openai.sandbox.source.restate(TODAY - 1)  # type: ignore[union-attr]
    openai.clock.seconds += 60
    result = await openai.poll(resources=only(COSTS, USAGE))
    assert result.restated == result.published == 2
    assert openai.metric("tallystream_poller_buckets_restated_total", resource=COSTS) == 1
    after = await openai.rows()
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {(COSTS, day(-1)), (USAGE, day(-1))}
    spent = sum((dollars for cell in cells(openai, -1) for dollars in cell.costs.values()), Decimal(0))
    assert sum(row["amount"]["value"] for row in after[COSTS, day(-1)]) == spent
    assert spent > sum(row["amount"]["value"] for row in before[COSTS, day(-1)])


async def test_poller_with_a_slow_clock_can_replace_records(openai: Rig) -> None:
    await openai.poll(resources=only(COSTS))
    openai.sandbox.source.restate(TODAY - 1)  # type: ignore[union-attr]
    openai.clock.seconds -= 30
    await openai.poll(resources=only(COSTS))
    spent = sum((dollars for cell in cells(openai, -1) for dollars in cell.costs.values()), Decimal(0))
    assert sum(row["amount"]["value"] for row in (await openai.rows())[COSTS, day(-1)]) == spent


@pytest.mark.parametrize("kind", ["half", "truncate", "reset", "status"])
async def test_query_failing_on_a_later_page_publishes_nothing(openai: Rig, kind: str) -> None:
    """31 days in pages of 31 are one page; in pages of 10 the third one breaks."""
    costs = only(COSTS)[0].model_copy(update={"pages": only(COSTS)[0].pages.model_copy(update={"size": 10})})  # type: ignore[union-attr]
    openai.clock.seconds -= 40 * DAY
    await openai.poll(resources=(costs,))
    before = await openai.rows()
    openai.clock.seconds = NOON
    openai.order(match="page=page_20", kind=kind)
    result = await openai.poll(resources=(costs,))
    assert set(result.failures) == {COSTS}
    assert await openai.rows() == before
    openai.sandbox.faults.clear()
    assert (await openai.poll(resources=(costs,))).failures == {}
    assert set(await openai.rows()) >= {(COSTS, day(-n)) for n in range(71)}


async def test_failed_polls_do_not_change_known_days(openai: Rig) -> None:
    await openai.poll()
    before = await openai.messages(openai.topics.openai_records.name)
    openai.order(match="/usage", kind="status", status=500)
    openai.order(match="/models", kind="half")
    openai.order(match="/organization/costs", kind="status", status=403)
    openai.order(match="/dashboard", kind="reset")
    for _ in range(4):
        openai.clock.seconds += 6 * 3600
        result = await openai.poll()
        assert set(result.failures) == {resource.name for resource in builtin()}
    assert await openai.messages(openai.topics.openai_records.name) == before
    assert result.failures[COSTS].why == FailureReason.FORBIDDEN
    assert openai.metric("tallystream_poller_failures_total", resource=COSTS, reason="forbidden") == 1
    assert openai.metric("tallystream_poller_last_success_timestamp_seconds", resource=COSTS) == 0
    openai.sandbox.faults.clear()
    assert (await openai.poll()).failures == {}
    rows = await openai.rows()
    for offset in range(-31, 2):
        spent = sum((dollars for cell in openai.sandbox.source.day(TODAY + offset) if cell.at < openai.clock.seconds
                     for dollars in cell.costs.values()), Decimal(0))  # fmt: skip
        if (COSTS, day(offset)) in rows:
            assert sum(row["amount"]["value"] for row in rows[COSTS, day(offset)]) == spent
    assert (COSTS, day(1)) in rows


async def test_backfill_fetches_history_once(openai: Rig) -> None:
    await openai.poll(resources=only(COSTS, USAGE))
    result = await openai.poll(resources=only(COSTS, USAGE), backfill=90.0 * DAY)
    assert result.published == 60 + 60
    rows = await openai.rows()
    assert {bucket for resource, bucket in rows if resource == USAGE} == {day(-n) for n in range(91)}
    assert (await openai.poll(resources=only(COSTS, USAGE), backfill=90.0 * DAY)).published == 0


async def test_interrupted_backfill_resumes_where_it_stopped(openai: Rig) -> None:
    openai.order(match=f"date={day(-40)}", kind="status", status=400, times=1)
    broken = await openai.poll(resources=only(USAGE), backfill=60.0 * DAY)
    assert set(broken.failures) == {USAGE}
    assert broken.published == 40
    openai.sandbox.seen.clear()
    assert (await openai.poll(resources=only(USAGE), backfill=60.0 * DAY)).published == 21
    asked = [one["query"] for one in openai.sandbox.requests()]
    assert asked == [f"date={day(offset)}" for offset in (-2, -1, 0, *range(-40, -61, -1))]


async def test_custom_resource_is_polled_like_built_in_ones(openai: Rig) -> None:
    mine = Resource.model_validate(
        {"path": COSTS, "name": "costs by key", "key": "admin", "rows": ".results", "bucket": "1d", "pages": {},
         "lookback": timedelta(days=9),
         "params": {"start_time": "$from", "end_time": "$to", "group_by": ["api_key_id"]}}
    )  # fmt: skip
    await openai.poll(resources=(*only(COSTS), mine))
    rows = await openai.rows()
    for offset in range(-9, 1):
        one, other = rows["costs by key", day(offset)], rows[COSTS, day(offset)]
        assert sum(row["amount"]["value"] for row in one) == sum(row["amount"]["value"] for row in other)
        assert {row["project_id"] for row in one} == {None}


async def test_bucket_too_large_for_kafka_is_reported_and_others_are_published(openai: Rig) -> None:
    # Pseudo-random digits, so that 3 MB of them do not compress below Kafka's limit of 1 MB.
    digits = '[range(12)] | map(($i * 12 + .) * 2654435761 % 4294967291 | tostring) | join("")'
    rows = f"[range(26000) as $i | {{n: ({digits})}}]"
    noise = Resource.model_validate({"path": MODELS, "name": "noise", "data": ".data[:1]", "rows": rows})
    # This JQ program takes a second or two, during which there are no heartbeats.
    result = await openai.poll(resources=(noise, *only(MODELS)), session_timeout=60.0)
    assert {name: failure.why for name, failure in result.failures.items()} == {"noise": FailureReason.TOO_LARGE}
    assert (MODELS, CURRENT) in await openai.rows()


async def test_record_of_a_late_writer_is_overwritten(openai: Rig) -> None:
    """A poller was stopped before its write and resumes after its successor's; compaction would keep its record."""
    await openai.poll(resources=only(COSTS))
    newest = await openai.records()
    right = next(one for one in newest.values() if one.bucket == day(-20))
    stale = right.model_copy(update={"polled_at": right.polled_at - timedelta(hours=3), "rows": [], "digest": "0" * 16})
    await write(openai, stale)
    await openai.poll(resources=only(COSTS))
    last = {
        key: OpenAIRecord.model_validate_json(value)
        for key, value in await openai.messages(openai.topics.openai_records.name)
    }
    assert last[right.key].rows == right.rows
    assert openai.metric("tallystream_poller_records_repaired_total") == 1


async def test_record_that_kafka_refuses_to_have_repaired_is_repaired_by_a_later_poll(openai: Rig) -> None:
    await openai.poll(resources=only(COSTS))
    found = next(one for one in (await openai.records()).values() if one.bucket == day(-20))
    # Digits that do not compress below the limit that is set next.
    rows: list[Any] = [{"noise": sha256(bytes([n])).hexdigest()} for n in range(200)]
    right = found.model_copy(update={"rows": rows, "digest": "1" * 16})
    late = right.model_copy(update={"polled_at": right.polled_at - timedelta(hours=3), "rows": []})
    await write(openai, right)
    topic = openai.topics.openai_records.name
    async with openai.polling(resources=only(COSTS), interval=1.0) as (poller, running):
        await until(lambda: poller.status().resources[0].last_success_at, "it has polled")
        async with administering(openai.kafka) as admin:
            await set_topic_config(admin, topic, {"max.message.bytes": "4000"})
            await write(openai, late)
            polls = len(openai.sandbox.seen)
            await until(lambda: running.done() or len(openai.sandbox.seen) > polls + 3, "it goes on polling")
            assert not running.done(), running.exception()
            assert openai.metric("tallystream_poller_records_repaired_total") == 0
            await set_topic_config(admin, topic, {"max.message.bytes": "1000000"})
        await until(lambda: openai.metric("tallystream_poller_records_repaired_total"), "it is repaired")
        last = [value for key, value in await openai.messages(topic) if key == right.key][-1]
        assert OpenAIRecord.model_validate_json(last).rows == rows


async def write(one: Rig, record: OpenAIRecord) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(**one.kafka.client())
    await producer.start()
    try:
        await producer.send_and_wait(one.topics.openai_records.name, record.model_dump_json().encode(), key=record.key)
    finally:
        await producer.stop()
