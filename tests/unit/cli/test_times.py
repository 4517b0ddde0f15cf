"""Times and durations as users write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.cli.output.times import parse_duration, parse_when
from tallystream.schemas.errors import UsageError

NOW = datetime(2026, 11, 21, 14, 30, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 10**9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", timedelta(minutes=90)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("2W", timedelta(weeks=2)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("0s", timedelta(0)),
        ("PT24H", timedelta(hours=24)),
        ("P1DT2H3M4S", timedelta(days=1, hours=2, minutes=3, seconds=4)),
    ],
)
def test_durations_are_parsed(text: str, expected: timedelta) -> None:
    assert parse_duration(text, "--grace") == expected


@pytest.mark.parametrize("text", ["", "P", "PT", "7", "d", "-7d", "7x", "12h1d", "9" * 40 + "d", "1.5h"])
def test_invalid_durations_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--grace"):
        parse_duration(text, "--grace")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC)),
        ("2026-11-21T14:00", datetime(2026, 11, 21, 14, tzinfo=UTC)),
        ("2026-11-21T14:00Z", datetime(2026, 11, 21, 14, tzinfo=UTC)),
        ("2026-11-21T16:00:00+02:00", datetime(2026, 11, 21, 14, tzinfo=UTC)),
        ("24h", NOW - timedelta(hours=24)),
        ("P7D", NOW - timedelta(days=7)),
    ],
)
def test_times_are_parsed(text: str, expected: datetime) -> None:
    assert parse_when(text, NOW_NS, "--since") == int(expected.timestamp()) * 10**9


@given(st.text(max_size=20))
def test_invalid_times_are_refused(text: str) -> None:
    wrong = None
    try:
        assert isinstance(parse_when(text, NOW_NS, "--since"), int)
    except UsageError as exc:
        wrong = exc
    assert wrong is None or ("--since" in wrong.message and wrong.hint)
