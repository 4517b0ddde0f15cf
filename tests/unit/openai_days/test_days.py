"""Days out of records: a pure function of the newest ones, whatever order and however often they come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.agents.openai_days import Days
from tallystream.schemas import exact
from tallystream.schemas.openai import BilledDay, OpenAIRecord, digest

COSTS, DASHBOARD = "/organization/costs", "/dashboard/billing/usage"
COMPLETIONS, LEGACY = "/organization/usage/completions", "/usage"
DAY = datetime(2026, 11, 21, tzinfo=UTC)


def record(
    resource: str, rows: list[dict[str, Any]], *, polled: int = 0, query: str = "a" * 16, start: datetime | None = DAY
) -> OpenAIRecord:
    packed, decimals = exact.pack(rows)
    return OpenAIRecord(
        resource=resource, query=query, bucket="current" if start is None else f"{start:%Y-%m-%d}", starts_at=start,
        ends_at=None if start is None else start + timedelta(days=1), polled_at=DAY + timedelta(seconds=polled),
        digest=digest(rows), rows=packed, decimals=decimals,
    )  # fmt: skip


def cost(value: str, item: str, project: str | None = None) -> dict[str, Any]:
    return {"amount": {"value": Decimal(value), "currency": "usd"}, "line_item": item, "project_id": project}


def rows_of(*records: OpenAIRecord) -> dict[tuple[str | None, str | None], BilledDay]:
    days = Days()
    for offset, one in enumerate(records):
        days.record(one.key, offset, one)
    found = [BilledDay.model_validate_json(value) for _, value in days.take()]
    return {(row.model, row.project_id): row for row in found}


def test_what_each_resource_says_stands_beside_the_others() -> None:
    rows = rows_of(
        record(COSTS, [cost("0.1", "gpt-5, input", "p"), cost("0.2", "gpt-5, output", "p"), cost("3", "storage", "p")]),
        record(DASHBOARD, [{"timestamp": 0, "line_items": [{"name": "gpt-5, input", "cost": Decimal("30.7")}]}]),
        record(COMPLETIONS, [{"model": "gpt-5", "project_id": "p", "input_tokens": 5, "output_tokens": 1,
                              "num_model_requests": 2, "batch": True},
                             {"model": "gpt-5", "project_id": "p", "input_tokens": 7, "output_tokens": 1,
                              "num_model_requests": 1, "batch": False}]),
        record(LEGACY, [{"snapshot_id": "gpt-5", "n_requests": 3, "aggregation_timestamp": 1_795_219_200,
                         "n_context_tokens_total": 12, "n_generated_tokens_total": 2}]),
        record("/models", [{"id": "gpt-5", "created": 1}], start=None),
    )  # fmt: skip
    both = rows["gpt-5", "p"]
    assert [(one.resource, one.usd) for one in both.billed] == [(COSTS, "0.3")], "exactly, which floats are not"
    assert [(one.resource, one.counts) for one in both.used] == [
        (COMPLETIONS, {"input_tokens": 12, "num_model_requests": 3, "output_tokens": 2})
    ]
    assert [(one.resource, one.usd) for one in rows["gpt-5", None].billed] == [(DASHBOARD, "0.307")]
    assert rows["gpt-5", None].used[0].counts == {
        "n_context_tokens_total": 12, "n_generated_tokens_total": 2, "n_requests": 3,
    }  # fmt: skip
    assert [one.usd for one in rows[None, "p"].billed] == ["3"], "a line item that is no model's"
    assert len(rows) == 3


def test_a_restated_bucket_replaces_all_its_rows_and_what_vanished_is_said_to_be_nothing() -> None:
    days = Days()
    days.record(b"k", 4, record(COSTS, [cost("1", "gpt-5, input"), cost("2", "o4-mini, input")]))
    assert len(days.take()) == 2
    days.record(b"k", 9, record(COSTS, [cost("1", "gpt-5, input")], polled=60))
    ((key, value),) = days.take()
    row = orjson.loads(value)
    assert key == b"2026-11-21|o4-mini|"
    assert (row["billed"], row["used"], row["version"]) == ([], [], [0, 9])


def test_the_query_polled_last_speaks_for_its_resource() -> None:
    old = record(COSTS, [cost("5", "gpt-5, input", "p"), cost("5", "gpt-5, input", "q")], query="b" * 16)
    new = record(COSTS, [cost("9.5", "gpt-5, input")], polled=5, query="a" * 16)
    rows = rows_of(new, old)
    assert {place: [one.usd for one in row.billed] for place, row in rows.items()} == {("gpt-5", None): ["9.5"]}


def test_what_was_published_is_not_published_again_unless_an_older_version_came_after_it() -> None:
    one = record(COSTS, [cost("1", "gpt-5, input")])
    first = Days()
    first.record(one.key, 3, one)
    ((key, value),) = first.take()
    old = orjson.dumps({**orjson.loads(value), "billed": [], "version": [0, 1]})

    restarted = Days()
    restarted.record(one.key, 3, one)
    restarted.published(key, value)
    assert restarted.take() == []
    restarted.published(key, old)  # of an agent that was paused
    assert restarted.take() == [(key, value)]
    restarted.published(key, value)
    assert restarted.take() == []


def test_a_row_of_an_unknown_shape_is_refused_and_changes_nothing() -> None:
    days = Days()
    days.record(b"k", 1, record(COSTS, [cost("1", "gpt-5, input")]))
    days.take()
    for rows in ([{"line_item": "x, input"}], [{"amount": "1", "line_item": None}]):
        with pytest.raises(ValueError, match="shape"):
            days.record(b"k", 2, record(COSTS, rows, polled=9))
    assert days.take() == []


@pytest.mark.parametrize(
    "poison", [b"{", b"null", b'{"day": "2026-11-21"}', b'{"version": ["a", 0]}'], ids=lambda value: value.decode()
)
def test_what_is_no_row_is_refused_and_changes_nothing(poison: bytes) -> None:
    one = record(COSTS, [cost("1", "gpt-5, input")])
    days = Days()
    days.record(one.key, 3, one)
    ((key, value),) = days.take()
    for name, said in ((key, poison), (b"x|y", value), (b"\xff", value), (key + b"z", value)):
        with pytest.raises(ValueError, match=r"key|validation|JSON"):
            days.published(name, said)
    days.removed(b"x")
    assert days.take() == []
    days.removed(key)  # readers do not have it any more
    assert days.take() == [(key, value)]


amounts = st.decimals(min_value=0, max_value=1000, places=9)
batches = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 20), st.lists(amounts, max_size=3)), max_size=12
)


@given(batches, st.randoms(use_true_random=False))
def test_order_and_repetition_of_records_do_not_matter(batches: Any, rng: Any) -> None:
    """Equal polls of one bucket are the same poll, as the poller sees to."""
    polls = {(name, polled): amounts for name, polled, amounts in batches}
    records = [
        record(COSTS, [cost(str(amount), f"{name}, input", name) for amount in amounts], polled=polled, query=name * 16)
        for (name, polled), amounts in polls.items()
    ]
    shuffled = records + rng.choices(records, k=5) if records else []
    rng.shuffle(shuffled)
    one, other = Days(), Days()
    for days, given_ in ((one, records), (other, shuffled)):
        for offset, each in enumerate(given_):
            days.record(each.key, offset, each)

    def said(days: Days) -> dict[bytes, Any]:
        return {key: {**orjson.loads(value), "version": None} for key, value in days.take()}

    assert said(one) == said(other)
