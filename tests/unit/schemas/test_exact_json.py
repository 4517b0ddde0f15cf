"""Exact JSON: OpenAI's numbers are kept to the last digit."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.schemas import exact
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.openai import cents_to_usd, digest

DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**12), max_value=10**12)
NUMBERS = st.integers(-(10**18), 10**18) | DECIMALS
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


def normal(value: object) -> Any:
    """Normalise a value so that `6.0` and `6` are equal."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else value
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    return [normal(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
def test_exact_json_is_read_back(value: object) -> None:
    assert exact.loads(exact.dumps(value)) == normal(value)


@given(VALUES)
def test_packed_numbers_are_restored_and_contain_no_fractions(value: object) -> None:
    value = normal(value)
    try:
        packed, paths = exact.pack(value)
    except InvalidBodyError:
        return
    assert exact.unpack(json.loads(json.dumps(packed, default=_fail)), paths) == value


def _fail(value: object) -> Any:
    raise AssertionError(f"{value!r} is not plain JSON")


def test_sums_are_exact_where_floats_are_not() -> None:
    rows = exact.loads('[{"amount": {"value": 0.1}}, {"amount": {"value": 0.2}}, {"amount": {"value": 1e-7}}]')
    packed, paths = exact.pack(rows)
    assert packed == [{"amount": {"value": "0.1"}}, {"amount": {"value": "0.2"}}, {"amount": {"value": "0.0000001"}}]
    assert paths == ["[].amount.value"]
    assert sum(row["amount"]["value"] for row in exact.unpack(packed, paths)) == Decimal("0.3000001")


def test_strings_and_numbers_are_kept_apart() -> None:
    rows = [{"value": Decimal("0.5"), "model": "4.5"}, {"value": "n/a", "model": "5"}]
    assert exact.unpack(*exact.pack(rows)) == rows


def test_numbers_and_digit_strings_at_one_path_are_distinguished() -> None:
    rows = exact.loads(
        '[{"amount": {"value": "12.50"}}, {"amount": {"value": 6e-05}}, {"amount": {"value": 0.1}},'
        ' {"amount": {"value": 3}}, {"lines": [{"cost": "1.5"}, {"cost": 1.5}]}]'
    )
    packed, paths = exact.pack(rows)
    assert paths == ["[1].amount.value", "[2].amount.value", "[4].lines[1].cost"]
    assert [row["amount"]["value"] for row in packed[:4]] == ["12.50", "0.00006", "0.1", 3]
    assert exact.unpack(packed, paths) == rows


@pytest.mark.parametrize(
    "text", ["1e" + "7" * 120, "", "{", '{"a": NaN}', "[Infinity]", "1e999999999", "9" * 5000, b"\xff", "[" * 100_000]
)
def test_invalid_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidBodyError):
        exact.loads(text)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), NUMBERS, max_size=3), max_size=6), st.randoms())
def test_digest_ignores_the_order_of_rows(rows: list[dict[str, Any]], random: Any) -> None:
    shuffled = [dict(sorted(row.items(), reverse=True)) for row in rows]
    random.shuffle(shuffled)
    assert digest(rows) == digest(shuffled)
    assert digest([*rows, {"a": 1}]) != digest(rows)


def test_digest_depends_on_values_and_not_on_their_format() -> None:
    one, other = exact.loads('[{"cost": 12.50, "n": 3}]'), exact.loads('[{"n": 3.0, "cost": 1.25e1}]')
    assert digest(one) == digest(other)
    assert digest(one) != digest(exact.loads('[{"cost": 12.51, "n": 3}]'))


def test_cents_are_converted_to_dollars_exactly() -> None:
    assert cents_to_usd(Decimal("6.0001")) == Decimal("0.060001")
    assert cents_to_usd(199) == Decimal("1.99")
