"""A query returns all pages or fails."""

from __future__ import annotations

from typing import Any

import pytest

from tallystream.streams.poller.errors import FailureReason, PollError
from tallystream.streams.poller.params import Pairs
from tallystream.streams.poller.query import fetch_buckets, fetch_current
from tallystream.streams.poller.request import PageAnswer, PageRequest
from tallystream.streams.poller.resources import Resource
from tallystream.streams.poller.schedule import TimeSpan

DAY = 86_400
WEEK = TimeSpan(0, 7 * DAY)


class Script:
    """Returns the given answers in order, and records the requests."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[Pairs] = []
        self.requests: list[PageRequest] = []

    async def fetch(self, request: PageRequest) -> PageAnswer:
        self.requests.append(request)
        self.asked.append(request.params)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, PageAnswer) else PageAnswer(answer)


def resource(**changes: object) -> Resource:
    raw = {
        "path": "/costs",
        "bucket": "1d",
        "rows": ".results",
        "pages": {"size": 2},
        "params": {"start_time": "$from"},
    }
    return Resource.model_validate(raw | changes)


def bucket(day: int, *rows: dict[str, Any]) -> dict[str, Any]:
    return {"start_time": day * DAY, "results": list(rows)}


def page(*items: dict[str, Any], following: str | None = None) -> dict[str, Any]:
    return {"data": list(items), "has_more": following is not None, "next_page": following}


async def test_pages_are_followed_to_the_end() -> None:
    script = Script(page(bucket(0, {"n": 1}), bucket(1), following="b"), page(bucket(2, {"n": 3})))
    assert await fetch_buckets(script, resource(), WEEK, 1e6) == {0: [{"n": 1}], DAY: [], 2 * DAY: [{"n": 3}]}
    assert script.asked == [
        [("start_time", "0"), ("limit", "2")],
        [("start_time", "0"), ("limit", "2"), ("page", "b")],
    ]


async def test_failed_page_fails_the_query() -> None:
    script = Script(page(bucket(0, {"n": 1}), following="b"), PollError(FailureReason.SERVER_ERROR, "down"))
    with pytest.raises(PollError, match="down"):
        await fetch_buckets(script, resource(), WEEK, 1e6)


async def test_circular_pages_are_detected() -> None:
    script = Script(page(bucket(0), following="b"), page(bucket(1), following="c"), page(bucket(2), following="b"))
    with pytest.raises(PollError) as caught:
        await fetch_buckets(script, resource(), WEEK, 1e6)
    assert caught.value.why == FailureReason.PAGINATION


async def test_bucket_repeated_on_two_pages_fails_the_query() -> None:
    script = Script(page(bucket(0, {"n": 1}), following="b"), page(bucket(0, {"n": 2})))
    with pytest.raises(PollError) as caught:
        await fetch_buckets(script, resource(), WEEK, 1e6)
    assert caught.value.why == FailureReason.SHAPE


async def test_offset_paging_ends_with_a_short_page() -> None:
    pages = {"style": "offset", "param": "offset", "size": 2}
    script = Script({"data": [{"id": 1}, {"id": 2}]}, {"data": [{"id": 3}, {"id": 4}]}, {"data": []})
    rows = await fetch_current(script, resource(bucket=None, rows="[.]", params={}, pages=pages), 1e6)
    assert [row["id"] for row in rows] == [1, 2, 3, 4]
    assert [dict(asked).get("offset") for asked in script.asked] == [None, "2", "4"]


async def test_date_resource_is_requested_for_each_day() -> None:
    pasted = {"date": '(now | floor) | strftime("%Y-%m-%d")'}
    daily = resource(requests="bucket", rows="[.]", pages=None, params=pasted)
    script = Script({"data": [{"n": 1}]}, {"data": []})
    now = 20 * DAY + 3600.0
    assert await fetch_buckets(script, daily, TimeSpan(18 * DAY, 19 * DAY), now) == {18 * DAY: [{"n": 1}]}
    assert await fetch_buckets(script, daily, TimeSpan(20 * DAY, 21 * DAY), now) == {20 * DAY: []}
    assert script.asked == [[("date", "1970-01-19")], [("date", "1970-01-21")]]
