"""Cost tables: rules that hold for every view and grouping, and an example of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from tallystream.agents.cost_query import FIELDS, GROUPINGS, VIEWS, Query
from tallystream.agents.cost_table import Table, keep_newest
from tallystream.schemas.errors import UsageError
from tallystream.schemas.hours import HOUR_NS, hour_from_iso, hour_iso
from tallystream.schemas.rows import SUM_COUNTS, SessionHourCost

NOW = 500_000 * HOUR_NS
TOKENS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "tool")


@dataclass
class Message:
    key: bytes | None
    value: bytes | None


def bucket(**over: Any) -> dict[str, Any]:
    made: dict[str, Any] = dict.fromkeys(SUM_COUNTS, 0) | {
        "requests": 1, "input_uncached": 10, "output": 5, "total_tokens": 15, "cost_usd": "0.5",
        "reported_cost_usd": None, "model": "gpt-5", "service_tier": None, "speed": None, "book": "b1",
        "attribution": {},
    }  # fmt: skip
    return made | over


def row(*buckets: dict[str, Any], **over: Any) -> bytes:
    made = {
        "connection_id": "codex-1a2b", "client": "codex", "provider": "openai", "session_id": "s1",
        "hour": hour_iso(499_000), "version": [0, 1], "duplicates": 0, "buckets": list(buckets) or [bucket()],
    }  # fmt: skip
    return SessionHourCost.model_validate(made | over).model_dump_json().encode()


def table(query: Query, *values: bytes) -> list[dict[str, Any]]:
    made = Table(query)
    made.add(values)
    assert made.skipped == 0
    return list(made.rows(NOW))


small = st.integers(0, 10**6)
usd = st.none() | st.integers(0, 10**15).map(lambda pico: format(Decimal(pico).scaleb(-12), "f"))
attributions = st.fixed_dictionaries(
    {}, optional={"team": st.sampled_from(["a", "b"]), "user": st.sampled_from(["u_1", "u_2"]), "repo": st.just("r")}
)


@st.composite
def buckets(draw: st.DrawFn) -> dict[str, Any]:
    counts = {name: draw(small) for name in TOKENS}
    return {
        **counts,
        "requests": draw(st.integers(1, 100)),
        "reasoning": draw(st.integers(0, counts["output"])),
        "total_tokens": sum(counts.values()),
        "unpriced_requests": draw(st.integers(0, 3)),
        "late_events": draw(st.integers(0, 3)),
        "cost_usd": draw(usd),
        "reported_cost_usd": draw(usd),
        "model": draw(st.sampled_from(["gpt-5", "o3"])),
        "service_tier": draw(st.sampled_from([None, "flex"])),
        "speed": draw(st.sampled_from([None, "fast"])),
        "book": draw(st.sampled_from(["b1", "b2"])),
        "attribution": draw(attributions),
    }


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    return row(
        *draw(st.lists(buckets(), min_size=1, max_size=3)),
        connection_id=draw(st.sampled_from(["codex-1a2b", "codex-3c4d"])),
        session_id=draw(st.sampled_from(["s1", "s2"])),
        hour=hour_iso(draw(st.integers(499_990, 500_000))),
        version=[draw(st.integers(0, 1)), draw(st.integers(0, 99))],
    )


queries = st.builds(
    Query,
    view=st.sampled_from(list(VIEWS)),
    by=st.lists(st.sampled_from(list(GROUPINGS)), max_size=2, unique=True).map(tuple),
)


def by_hand(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Add up buckets or rows without the product's code."""
    parts = list(parts)
    costs = {
        name: [Decimal(part[name]) for part in parts if part[name] is not None]
        for name in ("cost_usd", "reported_cost_usd")
    }
    return {name: sum(part[name] for part in parts) for name in SUM_COUNTS} | {
        name: sum(found) if found else None for name, found in costs.items()
    }


def as_decimals(sums: dict[str, Any]) -> dict[str, Any]:
    money = {name: None if sums[name] is None else Decimal(sums[name]) for name in ("cost_usd", "reported_cost_usd")}
    return {name: sums[name] for name in SUM_COUNTS} | money


@examples(200)
@given(st.lists(documents(), max_size=12), queries)
def test_every_view_has_the_same_totals(values: list[bytes], query: Query) -> None:
    made = Table(query)
    made.add(values)
    rows = list(made.rows(NOW))
    truth = by_hand(one for value in values for one in orjson.loads(value)["buckets"])
    assert by_hand(rows) == truth
    assert as_decimals(made.totals(NOW)) == truth
    assert sum(made.unpriced.values()) == truth["unpriced_requests"]


@examples(100)
@given(st.lists(documents(), max_size=12), queries)
def test_rows_have_unique_names(values: list[bytes], query: Query) -> None:
    made = Table(query)
    made.add(values)
    rows = list(made.rows(NOW))
    assert all(tuple(one) == query.fields for one in rows)
    names = [name for name in query.fields if name not in SUM_COUNTS and name not in ("cost_usd", "reported_cost_usd")]
    names = [name for name in names if name not in ("final", "version", "sessions")]
    assert len({orjson.dumps([one[name] for name in names]) for one in rows}) == len(rows)


@given(st.lists(st.tuples(st.sampled_from([b"k1", b"k2"]), st.integers(0, 2), st.integers(0, 5)), max_size=20))
def test_highest_version_wins_and_the_later_of_two_equal_ones(arrivals: list[tuple[bytes, int, int]]) -> None:
    expected: dict[bytes, tuple[tuple[int, int], int]] = {}
    messages = []
    for number, (key, generation, offset) in enumerate(arrivals):
        messages.append(Message(key, row(bucket(requests=number), version=[generation, offset])))
        if key not in expected or (generation, offset) >= expected[key][0]:
            expected[key] = (generation, offset), number
    newest: dict[bytes, tuple[tuple[int, int], bytes]] = {}
    assert keep_newest(newest, messages) == 0
    found = {key: orjson.loads(value)["buckets"][0]["requests"] for key, (_, value) in newest.items()}
    assert found == {key: number for key, (_, number) in expected.items()}


def test_version_is_found_in_any_json() -> None:
    spaced = Message(b"k", b'{"version": [0, 7], "session_id": "s"}')
    tricky = Message(b"t", orjson.dumps({"session_id": '"version":[9,9]', "version": [0, 3]}))
    newest: dict[bytes, tuple[tuple[int, int], bytes]] = {}
    assert keep_newest(newest, [spaced, tricky]) == 0
    assert {key: version for key, (version, _) in newest.items()} == {b"k": (0, 7), b"t": (0, 3)}


def test_tombstones_remove_rows_and_invalid_rows_are_counted() -> None:
    newest: dict[bytes, tuple[tuple[int, int], bytes]] = {}
    broken = keep_newest(
        newest, [Message(b"k", row()), Message(b"k", None), Message(b"x", b"no json"), Message(b"y", b'{"version":3}')]
    )
    assert newest == {}
    assert broken == 2


@pytest.mark.parametrize(
    "wrong",
    [
        b"[]",
        b"null",
        b"{}",
        orjson.dumps(orjson.loads(row()) | {"buckets": [bucket(), bucket(requests="1")]}),
        orjson.dumps(orjson.loads(row()) | {"buckets": [bucket(), bucket(cost_usd="a lot")]}),
        orjson.dumps(orjson.loads(row()) | {"buckets": [bucket(), {"model": "gpt-5"}]}),
        orjson.dumps(orjson.loads(row()) | {"session_id": None}),
    ],
)
def test_invalid_rows_are_left_out_completely(wrong: bytes) -> None:
    made = Table(Query("sessions"))
    made.add([wrong, row()])
    assert made.skipped == 1
    assert [one["requests"] for one in made.rows(NOW)] == [1]


def test_row_has_the_documented_fields() -> None:
    value = row(bucket(attribution={"team": "payments"}, service_tier="flex"), version=[0, 41])
    (session,) = table(Query("sessions"), value)
    assert list(session) == [*(name for name in FIELDS if name != "hour"), "seen_share"]
    assert session["attribution"] == {"team": "payments"}
    assert (session["session_id"], session["service_tier"], session["version"]) == ("s1", "flex", [0, 41])
    (hourly,) = table(Query("session-hours"), value)
    assert list(hourly) == [*FIELDS, "seen_share"]
    assert hourly["hour"] == hour_iso(499_000)


def test_collapsed_fields_are_null_and_the_group_is_named() -> None:
    values = [
        row(bucket(attribution={"team": "payments", "user": "u_1"}), session_id="s1"),
        row(bucket(attribution={"team": "payments", "user": "u_2"}), session_id="s2"),
        row(bucket(), session_id="s3"),
    ]
    first, second = table(Query("sessions", by=("team",)), *values)
    assert (first["team"], first["requests"], first["sessions"]) == ("payments", 2, 2)
    assert first["attribution"] == {"team": "payments"}
    assert [first[name] for name in ("connection_id", "session_id", "model", "book", "client")] == [None] * 5
    assert second["team"] is None


def test_rows_can_be_grouped_by_a_column() -> None:
    values = [row(connection_id="codex-aaaa"), row(connection_id="codex-bbbb"), row(connection_id="codex-bbbb")]
    rows = table(Query("sessions", by=("connection",)), *values)
    assert [(one["connection"], one["connection_id"], one["requests"]) for one in rows] == [
        ("codex-bbbb", "codex-bbbb", 2),
        ("codex-aaaa", "codex-aaaa", 1),
    ]
    hourly = table(Query("hours", by=("provider",)), row(), row(hour=hour_iso(499_001)))
    assert [(one["hour"], one["provider"]) for one in hourly] == [
        (hour_iso(499_000), "openai"),
        (hour_iso(499_001), "openai"),
    ]


def test_rows_are_not_split_by_speed() -> None:
    (only,) = table(Query("sessions"), row(bucket(speed="fast"), bucket(speed=None)))
    assert only["requests"] == 2


def test_money_is_exact_and_null_without_any_price() -> None:
    parts = [bucket(cost_usd="0.000000000001") for _ in range(3)]
    (only,) = table(Query("sessions"), row(*parts, bucket(cost_usd=None, unpriced_requests=1)))
    assert (only["cost_usd"], only["unpriced_requests"]) == ("0.000000000003", 1)
    (none,) = table(Query("sessions"), row(bucket(cost_usd=None, unpriced_requests=1)))
    assert none["cost_usd"] is None
    (reported,) = table(Query("sessions"), row(bucket(reported_cost_usd="0.1"), bucket(reported_cost_usd="0.2")))
    assert reported["reported_cost_usd"] == "0.3"


@pytest.mark.parametrize(("now_ns", "final"), [(HOUR_NS * 12 - 1, False), (HOUR_NS * 12, True)])
def test_hour_is_final_one_hour_after_its_end(now_ns: int, final: bool) -> None:
    made = Table(Query("session-hours"))
    made.add([row(hour=hour_iso(10))])
    assert [one["final"] for one in made.rows(now_ns)] == [final]


def test_session_is_final_when_all_its_hours_are() -> None:
    values = [row(hour=hour_iso(10), version=[0, 9]), row(hour=hour_iso(11), version=[0, 5])]
    made = Table(Query("sessions"))
    made.add(values)
    (only,) = made.rows(HOUR_NS * 12 + 1)
    assert (only["final"], only["version"]) == (False, [0, 9])


def test_filters_select_matching_rows() -> None:
    values = [
        row(connection_id="codex-aaaa", session_id="0199a213-81c0-7800-8aa1-00000000beef", hour=hour_iso(100)),
        row(connection_id="codex-bbbb", session_id="0199a213-81c0-7800-8aa1-00000000cafe", hour=hour_iso(101)),
        row(connection_id="codex-bbbb", session_id="other", hour=hour_iso(102)),
    ]

    def hours(**filters: Any) -> list[int]:
        return [hour_from_iso(one["hour"]) for one in table(Query("session-hours", **filters), *values)]

    assert hours() == [100, 101, 102]
    assert hours(connection="codex-bbbb") == [101, 102]
    assert hours(session="other") == [102]
    assert hours(session="0199a213…beef") == [100]
    assert hours(session="0199a213") == []
    assert hours(since=101) == [101, 102]
    assert hours(until=101) == [100]
    assert hours(since=-10, until=10**9) == [100, 101, 102]


def test_rows_are_ordered_by_cost_or_time() -> None:
    values = [
        row(bucket(cost_usd="1"), session_id="cheap", hour=hour_iso(101)),
        row(bucket(cost_usd="9"), session_id="dear", hour=hour_iso(102)),
        row(bucket(cost_usd=None), session_id="unknown", hour=hour_iso(100)),
    ]
    assert [one["session_id"] for one in table(Query("sessions"), *values)] == ["dear", "cheap", "unknown"]
    by_time = [one["session_id"] for one in table(Query("session-hours"), *values)]
    assert by_time == ["unknown", "cheap", "dear"]


def test_unknown_views_and_groupings_are_refused() -> None:
    with pytest.raises(UsageError, match="colour"):
        Query("sessions", by=("colour",))
    with pytest.raises(UsageError, match="weeks"):
        Query("weeks")
