"""A response becomes exact buckets, or an error."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tallystream.schemas import exact
from tallystream.streams.poller.errors import FailureReason, PollError
from tallystream.streams.poller.extract import Extractor, bucket_start, buckets
from tallystream.streams.poller.schedule import TimeSpan

DAY = 86_400
COSTS = exact.loads("""{"object": "page", "has_more": true, "next_page": "page_2", "data": [
    {"start_time": 86400, "results": [{"amount": {"value": 0.1, "currency": "usd"}, "big": 12345678901234567890},
                                      {"amount": {"value": 1234567890.123456789012}}]},
    {"start_time": 172800, "results": []}]}""")


def organisation() -> Extractor:
    return Extractor(data=".data", at=".start_time", rows=".results", next_page=".next_page", more=".has_more")


def test_buckets_are_extracted_exactly() -> None:
    page = organisation().page(COSTS)
    assert page.next == "page_2"
    assert [item.at for item in page.items] == [DAY, 2 * DAY]
    assert page.items[0].rows == [
        {"amount": {"value": Decimal("0.1"), "currency": "usd"}, "big": 12345678901234567890},
        {"amount": {"value": Decimal("1234567890.123456789012")}},
    ]
    assert page.items[1].rows == []


def test_dashboard_day_is_a_single_row() -> None:
    answer = exact.loads('{"daily_costs": [{"timestamp": 86400.0, "line_items": [{"name": "x", "cost": 6.0001}]}]}')
    page = Extractor(data=".daily_costs", at=".timestamp", rows="[.]", next_page=None, more=None).page(answer)
    assert page.items[0].at == DAY
    assert page.items[0].rows == [{"timestamp": DAY, "line_items": [{"name": "x", "cost": Decimal("6.0001")}]}]
    assert page.next is None


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"data": None}, {"data": 5}, {"error": {"message": "busy"}}, [], None,
        {"data": [{"results": 5, "start_time": 0}]},
        {"data": [{"results": [5], "start_time": 0}]},
        {"data": [{"results": [], "start_time": "soon"}]},
        {"data": [{"results": []}]},
        {"data": [{"results": [], "start_time": True}]},
    ],
)  # fmt: skip
def test_unexpected_answer_shape_is_a_failure(answer: object) -> None:
    with pytest.raises(PollError) as caught:
        organisation().page(answer)
    assert caught.value.why == FailureReason.SHAPE


@pytest.mark.parametrize("token", [None, "", 7])
def test_missing_next_page_is_a_failure(token: object) -> None:
    with pytest.raises(PollError) as caught:
        organisation().page({"data": [], "has_more": True, "next_page": token})
    assert caught.value.why == FailureReason.PAGINATION


def test_buckets_outside_the_window_are_ignored() -> None:
    items = organisation().page(COSTS).items
    assert set(buckets(items, TimeSpan(2 * DAY, 4 * DAY), DAY)) == {2 * DAY}


def test_two_items_for_one_bucket_are_a_failure() -> None:
    items = organisation().page(COSTS).items
    with pytest.raises(PollError, match="two items"):
        buckets([*items, items[0]], TimeSpan(0, 4 * DAY), DAY)


@pytest.mark.parametrize(
    ("value", "start"),
    [(86400, DAY), (Decimal("86400.5"), DAY), ("1970-01-02", DAY), ("1970-01-02T00:00:00Z", DAY),
     ("1970-01-02T01:00:00+01:00", DAY)],
)  # fmt: skip
def test_times_are_read_in_every_form(value: object, start: int) -> None:
    assert bucket_start(value) == start
