"""Parameters as JQ expressions: moving dates, literals, and errors that name the mistake."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
import time_machine

from tallystream.schemas.errors import UsageError
from tallystream.streams.poller.errors import FailureReason, PollError
from tallystream.streams.poller.params import Moment, Params, pairs

DAY = 86_400
NOON = 1_795_262_400  # 2026-11-21T12:00:00Z
PASTED = {
    "start_date": '((now | floor) - (86400 * 30)) | strftime("%Y-%m-%d")',
    "end_date": '(now | floor) | strftime("%Y-%m-%d")',
}


def moment(now: float = NOON, start: int = 0, end: int = DAY) -> Moment:
    return Moment(now, start, end)


def test_documented_expressions_move_with_each_poll() -> None:
    params = Params(PASTED)
    with time_machine.travel(NOON, tick=False):
        assert params.evaluate(moment(time.time())) == {"start_date": "2026-10-22", "end_date": "2026-11-21"}
    with time_machine.travel(NOON + 40 * DAY, tick=False):
        assert params.evaluate(moment(time.time())) == {"start_date": "2026-12-01", "end_date": "2026-12-31"}


def test_now_is_the_time_of_the_poll() -> None:
    assert Params({"t": "now"}).evaluate(moment(1.5)) == {"t": 1.5}


def test_window_is_available_as_from_and_to() -> None:
    params = Params({"date": '$from | strftime("%Y-%m-%d")', "until": "$to", "span": "$to - $from"})
    values = params.evaluate(moment(start=NOON // DAY * DAY, end=NOON // DAY * DAY + DAY))
    assert values == {"date": "2026-11-21", "until": 1_795_305_600, "span": DAY}


def test_other_values_are_sent_unchanged_and_null_is_left_out() -> None:
    params = Params({"limit": 31, "batch": False, "group_by": ["model", "batch"], "width": '"1d"', "none": "null"})
    assert pairs(params.evaluate(moment())) == [
        ("limit", "31"), ("batch", "false"), ("group_by", "model"), ("group_by", "batch"), ("width", "1d"),
    ]  # fmt: skip


def test_query_identity_ignores_moving_parameters() -> None:
    params = Params(PASTED | {"group_by": ["model"], "hour": '$from | strftime("%H")', "width": '"1d"'})
    assert params.fixed() == {"group_by": ["model"], "width": "1d"}
    assert Params({"hour": '$from | strftime("%H:%M")'}).fixed() == {}


@pytest.mark.parametrize("source", ["1d", "(now", "$nobody", "now |"])
def test_invalid_expressions_are_reported_at_the_start(source: str) -> None:
    with pytest.raises(UsageError, match="parameter date") as caught:
        Params({"date": source})
    assert "quotes" in caught.value.hint


@pytest.mark.parametrize("source", ["error(1)", "empty", "1, 2", "{}", "[[1]]", "input", "now | strftime(1)"])
def test_failing_expression_fails_its_poll(source: str) -> None:
    params = Params({"date": source})
    with pytest.raises(PollError, match="parameter date") as caught:
        params.evaluate(moment())
    assert caught.value.why == FailureReason.EXPRESSION


@pytest.mark.parametrize(
    "source", ["env.TALLYSTREAM_OPENAI_API_TOKEN", "$ENV.TALLYSTREAM_OPENAI_API_TOKEN", "env | length"]
)
def test_expressions_cannot_read_the_environment(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYSTREAM_OPENAI_API_TOKEN", "sk-secret")
    assert os.environ["TALLYSTREAM_OPENAI_API_TOKEN"] == "sk-secret"
    values: dict[str, Any] = Params({"leak": source}).evaluate(moment())
    assert values.get("leak") in (None, 0)
