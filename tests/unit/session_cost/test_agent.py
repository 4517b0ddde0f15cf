"""The fold with its real table on a store in memory, without Kafka: crashes at any moment, any split into messages."""

from __future__ import annotations

import random
from collections import defaultdict
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from tests.support.examples import examples
from tests.support.stepped_fold import NOW, NOW_MS, TOPICS, Message, Stepped, session_cost
from tests.support.usage import COUNTS, HOUR, Session, Truth, event, fleet, ns

from tallystream.agents.session_cost import agent
from tallystream.agents.session_cost.hour_state import to_row
from tallystream.agents.session_cost.metrics import MAX_UNPRICED, RuntimeCollector
from tallystream.agents.session_cost.state_rows import is_head, load
from tallystream.schemas import keys
from tallystream.schemas.errors import Reason
from tallystream.schemas.rows import HourCost, SessionHourCost
from tallystream.streams.runtime import Engine
from tallystream.streams.runtime.changelog import Watermark
from tallystream.streams.runtime.memory import MemoryBroker, MemoryHost
from tallystream.streams.runtime.store import MemoryStore

LAPTOP = Session("codex-7f3a", "one", "platform", "acme/app")


def messages_of(seed: int, sessions: int) -> tuple[list[Message], Truth]:
    truth = Truth()
    made: list[Message] = []
    for session, events in fleet(random.Random(seed), sessions, NOW):
        truth.add(session, events, NOW)
        made.append(Message(len(made), session.message(events), session.key))
    return made, truth


def totals(rows: dict[bytes, dict[str, Any]]) -> dict[str, int]:
    buckets = [b for row in rows.values() for b in row["buckets"]]
    return {name: sum(b[name] for b in buckets) for name in COUNTS}


@examples(25)
@given(st.integers(0, 10**6), st.data())
def test_any_split_crash_or_torn_group_gives_exact_rows(seed: int, data: st.DataObject) -> None:
    messages, truth = messages_of(seed, 6)
    fold_of = session_cost()
    partition = Stepped(0, fold_of)
    partition.take(data, messages, most=7)
    wanted = {name: sum(line.counts[name] for line in truth.lines.values()) for name in COUNTS}
    assert totals(partition.rows) == wanted
    assert sum(row["duplicates"] for row in partition.rows.values()) == truth.copies
    assert {name: sum(row[name] for row in partition.hours.values()) for name in COUNTS} == wanted
    stored = partition.stored()
    assert {
        key: orjson.loads(to_row(key, load(key, raw, stored.get))) for key, raw in stored.items() if is_head(key)
    } == partition.rows
    for row in partition.rows.values():
        SessionHourCost.model_validate(row, strict=True)
    for row in partition.hours.values():
        HourCost.model_validate(row, strict=True)


def test_hour_rows_equal_the_sum_of_session_hours() -> None:
    messages, truth = messages_of(5, 40)
    one = session_cost()
    partitions = [Stepped(p, one) for p in range(3)]
    for n in range(0, len(messages), 10):
        for p, partition in enumerate(partitions):
            mine = [m for m in messages[n : n + 10] if sum(m.key or b"") % 3 == p]
            if mine:
                partition.fold(mine)
                partition.commit()
    by_hour: dict[tuple[str, str, str | None], dict[str, int]] = defaultdict(lambda: dict.fromkeys(COUNTS, 0))
    for partition in partitions:
        for key, row in partition.hours.items():
            parts = keys.split(key)
            team = row["team"] or ""
            assert parts == (str(partition.p), row["connection_id"], row["hour"], row["model"], team)
            for name in COUNTS:
                by_hour[row["hour"], row["model"], row["team"]][name] += row[name]
    assert by_hour == {key: line.counts for key, line in truth.hours.items()}


def test_trimming_the_cache_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "MAX_CACHE_IDS", 200)
    messages, truth = messages_of(8, 30)
    partition = Stepped(0, session_cost())
    for n in range(0, len(messages), 4):
        partition.fold(messages[n : n + 4])
        partition.commit()
        assert len(partition.partition.cache) <= 30
    assert totals(partition.rows)["output"] == sum(line.counts["output"] for line in truth.lines.values())


def test_closing_hour_is_published_once_more_and_not_again() -> None:
    partition = Stepped(0, session_cost())
    rng = random.Random(1)
    old, new = event(rng, NOW - 2 * HOUR, "o3", "default"), event(rng, NOW, "o3", "default")
    partition.fold([Message(0, LAPTOP.message([old, new]), LAPTOP.key)])
    partition.partition.watermark = b"2026-11-21T13:00:00Z"  # it takes effect when the group is serialised
    partition.commit()
    assert len(partition.hours) == len(partition.rows) == 2
    before = dict(partition.hours)
    partition.fold([Message(1, LAPTOP.message([event(rng, NOW - 2 * HOUR), event(rng, NOW, "o3")]), LAPTOP.key)])
    partition.commit()
    changed = {row["hour"] for key, row in partition.hours.items() if before.get(key) != row}
    assert changed == {"2026-11-21T14:00:00Z"}
    assert [letter.reason for letter in partition.letters] == [Reason.CLOSED]
    seen = len(partition.letters)
    partition.recover(Watermark(b"2026-11-21T13:00:00Z", 2))
    partition.fold([Message(0, LAPTOP.message([old, new]), LAPTOP.key)])  # below the watermark's offset
    assert not partition.fold_of._derived[0].letters
    partition.fold([Message(2, LAPTOP.message([old]), LAPTOP.key)])
    partition.commit()
    assert len(partition.letters) == seen + 1
    assert partition.fold_of.is_closed(b"codex|s|2026-11-21T12:00:00Z", b"2026-11-21T13:00:00Z")
    assert not partition.fold_of.is_closed(b"codex|s|2026-11-21T13:00:00Z", b"2026-11-21T13:00:00Z")


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"poison",
        b"\xff",
        b"||||",
        b"0|a|\xff|c|d",
        b"1|codex-7f3a|2026-11-21T14:00:00Z|gpt-5|platform",
        b"a|b|i0|c",
    ],
    ids=repr,
)
@pytest.mark.parametrize("closing", [False, True])
def test_row_with_a_foreign_key_hides_nothing(key: bytes, closing: bool) -> None:
    """Other programs may write to the topic, and an owner that checks such records must not fail."""
    fold_of = session_cost()
    one = Stepped(0, fold_of)
    one.fold(messages_of(5, 3)[0])
    one.commit()
    one.recover(Watermark(fold_of.watermark(NOW_MS), 0) if closing else None)
    for topic in (TOPICS.session_hour_rows.name, TOPICS.hour_rows.name):
        assert fold_of.is_current(one.partition, topic, key, b"\xffgarbage")
        fold_of.rewrite(one.partition, topic, {key})
    assert one.partition.dirty == {}
    one.commit()


def test_changed_public_row_is_written_again() -> None:
    fold_of = session_cost()
    one = Stepped(0, fold_of)
    one.fold(messages_of(5, 3)[0])
    one.commit()
    for topic, rows in one.published.items():
        for key, row in list(rows.items()):
            assert fold_of.is_current(one.partition, topic, key, orjson.dumps(row))
            assert not fold_of.is_current(one.partition, topic, key, b"{}")
            rows[key] = {**row, "version": [-1, 0]}
            fold_of.rewrite(one.partition, topic, {key})
    before = {topic: dict(rows) for topic, rows in one.published.items()}
    one.commit()
    for topic, rows in one.published.items():
        assert rows.keys() == before[topic].keys()
        assert all(fold_of.is_current(one.partition, topic, key, orjson.dumps(row)) for key, row in rows.items())


def test_higher_version_of_a_partial_sum_wins() -> None:
    """One has folded a duplicate, which changed no sum; the other has recovered the resulting row."""
    message = messages_of(5, 1)[0][0]
    folded, recovered = Stepped(0, session_cost()), Stepped(0, session_cost())
    for offset in (0, 1):
        folded.fold([Message(offset, message.value, message.key)])
        folded.commit()
    heads = [(key, row) for key, row in folded.partition.rows(folded.fold_of.is_closed) if is_head(key)]
    recovered.store.write(0, [*heads, *recovered.derived(heads)], 1)
    recovered.recover()
    topic = TOPICS.hour_rows.name
    (key, low), *_ = folded.hours.items()
    high = {**low, "version": [0, 1]}
    assert low["version"] == [0, 0]

    def is_current(owner: Stepped, row: object) -> bool:
        value = row if isinstance(row, bytes) else orjson.dumps(row)
        return owner.fold_of.is_current(owner.partition, topic, key, value)

    assert [is_current(recovered, row) for row in (low, high)] == [False, True]
    assert [is_current(folded, row) for row in (low, high)] == [True, True]
    for wrong in ({**high, "requests": 9}, [high], {"version": [0, 1]}, b'"version":[0,1]} is no JSON'):
        assert not is_current(folded, wrong)


def test_worker_metrics_count_events_and_stay_bounded() -> None:
    registry = CollectorRegistry()
    one = session_cost(registry=registry)
    engine = Engine(one, MemoryHost(MemoryBroker()), MemoryStore(), source=TOPICS.usage.name, changelog="changelog")
    registry.register(RuntimeCollector(engine, lambda: 3))
    partition, rng = Stepped(0, one), random.Random(2)
    late, fine = event(rng, NOW - 3 * HOUR, "o3", "default"), event(rng, NOW, "o3", "default")
    odd = [event(rng, NOW, f"model-{n}", "default") for n in range(MAX_UNPRICED + 20)]
    partition.fold([Message(0, LAPTOP.message([late, fine, fine, *odd]), LAPTOP.key), Message(1, b"?", b"?")])
    partition.commit()
    shown = generate_latest(registry).decode()
    for line in (
        f"tallystream_worker_usage_events_total {2 + len(odd)}.0",
        "tallystream_worker_duplicate_events_total 1.0",
        "tallystream_worker_late_events_total 1.0",
        'tallystream_worker_dead_letters_total{reason="invalid_message"} 1.0',
        'tallystream_worker_unpriced_requests_total{model="other",provider="other",tier="other"} 20.0',
        "tallystream_worker_rebalances_total 3.0",
        'tallystream_worker_public_rows_total{kind="session_hours"} 2.0',
    ):
        assert line in shown.splitlines()
    assert shown.count("tallystream_worker_unpriced_requests_total{") == MAX_UNPRICED + 1


CLAUDE = {"connection_id": "claude-7f3a", "client": "claude", "provider": "anthropic", "session_id": "s"}


def told(offset: int, request: int, output: int, model: str = "claude-sonnet-4-5-20250929", second: int = 0) -> Message:
    """Return a message with one record of a Claude Code request."""
    one = {"event_id": f"{request:016x}", "occurred_at": ns(NOW) + second * 10**9, "model": model, "output": output}
    return Message(offset, orjson.dumps({**CLAUDE, "events": [one | {"reported_cost_usd": "0.5"}]}), b"claude-7f3a|s")


@pytest.mark.parametrize("order", [(1, 500), (500, 1)])
@pytest.mark.parametrize("between", [0, 100])
def test_larger_of_two_records_in_two_messages_counts_with_a_dead_letter(order: tuple[int, int], between: int) -> None:
    """This holds for any number of requests between them, and if the state was stored meanwhile."""
    partition = Stepped(0, session_cost())
    first, second = (told(0, 1, order[0]), told(between + 1, 1, order[1], second=1))
    partition.fold([first, *(told(n, 1 + n, 7) for n in range(1, between + 1))])
    partition.commit()
    partition.recover()
    partition.fold([second])
    partition.commit()
    for again in (first, second):  # copies: one is the counted record, and the other already has a dead letter
        copy = Message(between + 2 + (again is second), again.value, again.key)
        partition.fold([copy])
        partition.commit()
    ((_, row),) = partition.rows.items()
    (bucket,) = row["buckets"]
    assert (bucket["requests"], bucket["output"]) == (between + 1, 500 + 7 * between)
    assert Decimal(bucket["cost_usd"]) == Decimal("0.000015") * bucket["output"]
    assert Decimal(bucket["reported_cost_usd"]) == Decimal("0.5") * (between + 1)
    assert row["duplicates"] == 1
    ((_, hour),) = partition.hours.items()
    assert (hour["requests"], hour["output"], hour["cost_usd"]) == (between + 1, bucket["output"], bucket["cost_usd"])
    letter = partition.letters[0]
    assert letter.reason is Reason.CONFLICTING_COUNTS
    assert letter.detail == "two records of one request: 500 tokens counted, the other says 1"
    assert (letter.record["counted"]["output"], letter.record["other"]["output"]) == (500, 1)
    assert letter.record["counted"]["event_id"] == letter.record["other"]["event_id"] == f"{1:016x}"
    assert len(partition.letters) == 2


def test_record_repeated_with_another_model_leaves_no_empty_bucket() -> None:
    partition = Stepped(0, session_cost())
    partition.fold([told(0, 1, 1, "claude-haiku-4-5-20251001")])
    partition.commit()
    partition.fold([told(1, 1, 500)])
    partition.commit()
    ((_, row),) = partition.rows.items()
    assert [(b["model"], b["requests"], b["output"]) for b in row["buckets"]] == [
        ("claude-sonnet-4-5-20250929", 1, 500)
    ]
    partition.recover()
    partition.fold([told(2, 2, 9, "claude-haiku-4-5-20251001"), told(3, 2, 8)])
    partition.commit()
    ((_, row),) = partition.rows.items()
    assert sorted((b["model"], b["requests"], b["output"]) for b in row["buckets"]) == [
        ("claude-haiku-4-5-20251001", 1, 9), ("claude-sonnet-4-5-20250929", 1, 500),
    ]  # fmt: skip


@pytest.mark.thorough
def test_changelog_of_a_session_hour_grows_with_its_events_only() -> None:
    """What a group writes does not grow with the hour's earlier events: 4,096 groups of one event need less than 1 MB,
    and the second half of them as much as the first.
    """
    fold, halves = Stepped(0, session_cost()), [0]
    for half in range(2):
        for number in range(2048):
            body = {"connection_id": "codex-7f3a", "client": "codex", "provider": "openai", "session_id": "s"}
            offset = half * 2048 + number
            one = event(random.Random(offset), NOW, "gpt-5.1-codex", "default")
            fold.fold([Message(offset, orjson.dumps({**body, "attribution": {}, "events": [one]}), b"codex-7f3a|s")])
            fold.commit()
        halves.append(fold.changelog_bytes - sum(halves))
    assert fold.changelog_bytes < 1_000_000
    assert halves[2] < 1.1 * halves[1]
