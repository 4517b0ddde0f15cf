"""Keys, money and hours."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.schemas import keys, money
from tallystream.schemas.hours import HOUR_NS, hour_from_iso, hour_iso, hour_of

PART = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(PART, min_size=1, max_size=5).map(tuple))
def test_key_is_split_into_its_parts(parts: tuple[str, ...]) -> None:
    assert keys.split(keys.join(*parts)) == parts


@given(st.lists(PART, min_size=1, max_size=4).map(tuple), st.lists(PART, min_size=1, max_size=4).map(tuple))
def test_different_parts_have_different_keys(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    assert (keys.join(*a) == keys.join(*b)) == (a == b)


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_money_is_read_back_exactly(pico: int) -> None:
    assert money.to_pico(money.to_usd(pico)) == pico
    assert Fraction(money.to_usd(pico)) * 10**12 == pico


@pytest.mark.parametrize(
    ("pico", "usd"),
    [(0, "0"), (1, "0.000000000001"), (10**12, "1"), (1_250_000_000_000, "1.25"), (-5 * 10**11, "-0.5")],
)
def test_money_is_written_without_trailing_zeros(pico: int, usd: str) -> None:
    assert money.to_usd(pico) == usd


def test_reported_cost_is_rounded_half_to_even() -> None:
    assert money.to_pico("0.0000000000005") == 0
    assert money.to_pico("0.0000000000015") == 2


@given(st.datetimes(datetime(1970, 1, 1), datetime(2262, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - bounds
def test_hour_contains_its_time(at: datetime) -> None:
    ns = int(at.timestamp()) * 10**9
    hour = hour_of(ns)
    assert hour * HOUR_NS <= ns < (hour + 1) * HOUR_NS
    assert hour_from_iso(hour_iso(hour)) == hour
    assert hour_iso(hour) == at.strftime("%Y-%m-%dT%H:00:00Z")
