"""Days are a pure function of the newest records, in any order and with any repetitions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.agents.openai_days import Days
from tallystream.schemas import exact, keys
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


def test_resources_of_a_day_are_reported_separately() -> None:
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


def test_restated_bucket_replaces_its_rows_and_clears_vanished_ones() -> None:
    days = Days()
    days.record(b"k", 4, record(COSTS, [cost("1", "gpt-5, input"), cost("2", "o4-mini, input")]))
    assert len(days.take()) == 2
    days.record(b"k", 9, record(COSTS, [cost("1", "gpt-5, input")], polled=60))
    ((key, value),) = days.take()
    row = orjson.loads(value)
    assert key == b"2026-11-21|o4-mini|"
    assert (row["billed"], row["used"], row["version"]) == ([], [], [0, 9])


def test_latest_query_of_a_resource_is_used() -> None:
    old = record(COSTS, [cost("5", "gpt-5, input", "p"), cost("5", "gpt-5, input", "q")], query="b" * 16)
    new = record(COSTS, [cost("9.5", "gpt-5, input")], polled=5, query="a" * 16)
    rows = rows_of(new, old)
    assert {place: [one.usd for one in row.billed] for place, row in rows.items()} == {("gpt-5", None): ["9.5"]}


def test_row_is_published_again_only_after_an_older_version() -> None:
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


def line(value: Any, currency: Any = "usd") -> dict[str, Any]:
    return {"amount": {"value": value, "currency": currency}, "line_item": "gpt-5, input", "project_id": None}


UNUSABLE: dict[str, tuple[str, list[dict[str, Any]], str]] = {
    "no amount": (COSTS, [{"line_item": "x, input"}], "shape"),
    "an amount that is a text": (COSTS, [{"amount": "1", "line_item": None}], "amount"),
    "a null amount": (COSTS, [line(1), {"amount": None, "line_item": "gpt-5, output"}], "'gpt-5, output' is None"),
    "a null value": (COSTS, [line(1), line(None)], "an amount is None"),
    "not a number": (COSTS, [line("NaN")], "'NaN'"),
    "infinite": (COSTS, [line("-Infinity")], "'-Infinity'"),
    "true": (COSTS, [line(True)], "an amount is True"),
    "more digits than a price has": (COSTS, [line("1e999999")], "'1e999999'"),
    "another currency": (COSTS, [line("1.5"), line(2, "eur"), line("0.25", "EUR")], "2.25 eur, 1.5 usd"),
    "null line items": (DASHBOARD, [{"timestamp": 0, "line_items": None}], "shape"),
    "no line items": (DASHBOARD, [{"timestamp": 0}], "shape"),
    "a null cost": (DASHBOARD, [{"timestamp": 0, "line_items": [{"name": "x", "cost": None}]}], "an amount is None"),
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_answer_keeps_the_days_figures(case: str, restarted: bool) -> None:
    resource, rows, says = UNUSABLE[case]
    other = record(LEGACY, [{"snapshot_id": "gpt-5", "n_requests": 3}])
    good = (
        record(COSTS, [line("1.5")]) if resource == COSTS else
        record(DASHBOARD, [{"timestamp": 0, "line_items": [{"name": "gpt-5, input", "cost": 150}]}])
    )  # fmt: skip
    days = Days()
    days.record(other.key, 1, other)
    days.record(good.key, 2, good)
    before = days.take()
    assert days.problems == []
    if restarted:
        # Compaction has kept only the unusable record; the earlier figures are known only from the published row.
        days = Days()
        days.record(other.key, 1, other)
        for key, value in before:
            days.published(key, value)
    bad = record(resource, rows, polled=9)
    days.record(bad.key, 3, bad)
    assert days.take() == []
    (problem,) = days.problems
    assert (problem.key, problem.resource, problem.day) == (bad.key, resource, "2026-11-21")
    assert says in problem.detail
    days.record(good.key, 4, good)
    assert days.problems == [problem], "what was polled before says nothing of what was polled since"
    mended = good.model_copy(update={"polled_at": DAY + timedelta(seconds=10)})
    days.record(mended.key, 5, mended)
    assert (days.take(), days.problems) == ([], [])


def test_unreadable_record_keeps_the_days_figures() -> None:
    good = record(COSTS, [line("1.5")])
    first = Days()
    first.record(good.key, 2, good)
    ((key, value),) = first.take()
    days = Days()
    days.published(key, value)
    days.passed(good.key, 9)
    days.unreadable(good.key, "of another version")
    assert days.take() == []
    assert [one.detail for one in days.problems] == ["of another version"]
    days.record(good.key, 10, good)
    assert days.problems == []


def test_unusable_answer_for_a_new_day_publishes_nothing() -> None:
    days = Days()
    bad = record(COSTS, UNUSABLE["a null amount"][1])
    days.record(bad.key, 1, bad)
    assert days.take() == []
    assert [one.resource for one in days.problems] == [COSTS]


REQUESTS = ("num_model_requests", "n_requests")


def usage(name: str, requests: int, *, polled: int = 0, start: datetime = DAY) -> OpenAIRecord:
    rows = [{"model": "gpt-5", "num_model_requests": requests, "input_tokens": 7 * requests}] if requests else []
    return record(f"/organization/usage/{name}", rows, polled=polled, start=start)


def used(published: list[tuple[bytes, bytes]]) -> dict[str, dict[str, int]]:
    """Return the number of requests in a day's published rows, by resource."""
    rows = [BilledDay.model_validate_json(value) for _, value in published]
    return {
        row.day: {
            one.resource.rpartition("/")[2]: sum(one.counts.get(name, 0) for name in REQUESTS) for one in row.used
        }
        for row in rows
    }


def test_embeddings_alone_publish_no_day() -> None:
    days = Days()
    legacy = record(LEGACY, [{"snapshot_id": "gpt-5", "n_requests": 40}])
    days.record(legacy.key, 1, legacy)
    assert used(days.take()) == {"2026-11-21": {"usage": 40}}
    few = usage("embeddings", 1)
    days.record(few.key, 2, few)
    assert (days.take(), days.held) == ([], {"2026-11-21"})
    rest = usage("completions", 39)
    days.record(rest.key, 3, rest)
    assert used(days.take()) == {"2026-11-21": {"usage": 40, "embeddings": 1, "completions": 39}}
    assert days.held == set()


def test_resource_without_rows_counts_as_answered() -> None:
    days = Days()
    for offset, one in enumerate((usage("embeddings", 1), usage("completions", 0))):
        days.record(one.key, offset, one)
    assert used(days.take()) == {"2026-11-21": {"embeddings": 1}}


def test_day_waits_for_known_resources_until_they_are_silent_for_long() -> None:
    later = [DAY + timedelta(days=n) for n in range(4)]
    days, offset = Days(), 0

    def answered(name: str, day: datetime) -> list[tuple[bytes, bytes]]:
        nonlocal offset
        offset += 1
        one = usage(name, 2, polled=int((day - DAY).total_seconds()), start=day)
        days.record(one.key, offset, one)
        return days.take()

    answered("embeddings", later[0])
    assert used(answered("completions", later[0])) == {"2026-11-21": {"embeddings": 2, "completions": 2}}
    assert answered("completions", later[1]) == []
    assert answered("completions", later[2]) == []
    assert days.held == {"2026-11-22", "2026-11-23"}
    said = used(answered("completions", later[3]))
    assert said == {f"2026-11-{day}": {"completions": 2} for day in (22, 23, 24)}
    assert days.held == set()


def test_partly_restated_day_keeps_its_published_figures() -> None:
    """A restart finds the day's completions missing, for example because the topic was cut."""
    whole = Days()
    for offset, one in enumerate((usage("completions", 39), usage("embeddings", 1))):
        whole.record(one.key, offset, one)
    published = whole.take()
    days = Days()
    few = usage("embeddings", 5, polled=9)
    days.record(few.key, 7, few)
    for key, value in published:
        days.published(key, value)
    assert days.take() == []
    assert days.held == {"2026-11-21"}


def test_sums_of_tiny_amounts_are_exact() -> None:
    tiny = "0.000000000000000000000000000000000000000000123"
    rows = rows_of(record(COSTS, [line("12.50"), line(tiny), line(Decimal("0.00006")), line("-1.25")]))
    ((_, row),) = rows.items()
    assert Decimal(row.billed[0].usd) == Decimal("11.25006") + Decimal(tiny) or row.billed[0].usd.endswith("123")
    assert row.billed[0].usd == "11.250060000000000000000000000000000000000000123"


@pytest.mark.parametrize(
    "poison", [b"{", b"null", b'{"day": "2026-11-21"}', b'{"version": ["a", 0]}'], ids=lambda value: value.decode()
)
def test_invalid_row_is_refused_without_changes(poison: bytes) -> None:
    one = record(COSTS, [cost("1", "gpt-5, input")])
    days = Days()
    days.record(one.key, 3, one)
    ((key, value),) = days.take()
    for name, said in ((key, poison), (b"x|y", value), (b"\xff", value), (key + b"z", value)):
        with pytest.raises(ValueError, match=r"key|validation|JSON"):
            days.published(name, said)
    days.removed(b"x")
    assert days.take() == []
    days.removed(key)  # readers no longer have it
    assert days.take() == [(key, value)]


NO_KEYS = (b"x", b"\xff", b"\xff|\xfe|\xfd", b"a|b|2026-11-21", b"2026-11-21|gpt-5|", b"/organization/costs|q|current")


@pytest.mark.parametrize("key", NO_KEYS, ids=repr)
def test_record_with_an_invalid_key_is_ignored(key: bytes) -> None:
    one = record(COSTS, [cost("1", "gpt-5, input")])
    days = Days()
    days.record(one.key, 3, one)
    assert len(days.take()) == 1
    days.passed(key, 4)
    days.unreadable(key, "not JSON")
    assert (days.take(), days.problems) == ([], [])


@given(st.lists(st.binary() | st.lists(st.text(), min_size=3, max_size=3).map(lambda parts: keys.join(*parts))))
def test_unreadable_keys_raise_no_error(found: list[bytes]) -> None:
    days = Days()
    for offset, key in enumerate(found):
        days.passed(key, offset)
        days.unreadable(key, "not JSON")
    assert days.take() == []


def test_invalid_poll_time_affects_only_its_record() -> None:
    at = datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))
    one = record(COSTS, [cost("1", "gpt-5, input")]).model_copy(update={"polled_at": at})
    days = Days()
    days.record(one.key, 0, one)
    assert days.take() == []
    assert [problem.resource for problem in days.problems] == [COSTS]


@pytest.mark.parametrize("resource", [COSTS, DASHBOARD, COMPLETIONS, LEGACY])
def test_day_with_only_unreadable_records_is_not_published(resource: str) -> None:
    key = keys.join(resource, "a" * 16, "2026-11-21")
    days = Days()
    days.passed(key, 0)
    days.unreadable(key, "of another version")
    assert days.take() == []
    assert [(one.resource, one.day) for one in days.problems] == [(resource, "2026-11-21")]


amounts = st.decimals(min_value=0, max_value=1000, places=9)
batches = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 20), st.lists(amounts, max_size=3)), max_size=12
)


@given(batches, st.randoms(use_true_random=False))
def test_order_and_repetition_of_records_do_not_matter(batches: Any, rng: Any) -> None:
    """Equal polls of a bucket count as one, which the poller ensures."""
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


def test_route_modality_and_window_are_removed_from_model_names() -> None:
    items = [
        "gpt-5.6-sol, input",
        "priority | gpt-5.6-sol, output, long context",
        "gpt-image-2-2026-04-21 image, output",
    ]
    rows = rows_of(record(COSTS, [cost("1", item, "p") for item in items]))
    assert set(rows) == {("gpt-5.6-sol", "p"), ("gpt-image-2-2026-04-21", "p")}
    assert rows["gpt-5.6-sol", "p"].billed[0].usd == "2"
