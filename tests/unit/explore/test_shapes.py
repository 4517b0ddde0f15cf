"""The shape of an undocumented answer."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.explore.shapes import Shape, describe

ROWS = [
    {"id": "a", "created": 1_700_000_000, "n": 5, "cost": Decimal("0.5"), "tags": ["x"], "owner": {"name": "o"}},
    {"id": "b", "created": 1_700_000_001, "n": None, "cost": 2, "tags": [], "owner": None, "url": "https://x.example/"},
]


def shape(rows: list[Any]) -> Shape:
    found = Shape()
    for row in rows:
        found.observe(row)
    return found


def test_types_are_described_for_people() -> None:
    told = {name: describe(inner) for name, inner in shape(ROWS).fields.items()}
    assert told == {
        "id": "string", "created": "integer (epoch)", "n": "integer or null", "cost": "integer or number",
        "tags": "array", "owner": "object or null", "url": "string (url)",
    }  # fmt: skip


def test_always_present_means_in_every_row_and_not_null() -> None:
    found = shape(ROWS)
    assert [name for name in found.fields if found.always(name)] == ["id", "created", "cost", "tags"]


@pytest.mark.parametrize(
    ("values", "kind", "form"),
    [
        (["2026-11-21", "2026-11-22"], "string", "date"),
        (["2026-11-21T14:00:00Z"], "string", "date-time"),
        (["2026-11-21", "2026-11-21T14:00:00Z"], "string", None),
        (["2026-13-45"], "string", None),
        (["a@b.example"], "string", "email"),
        ([1_700_000_000, None], "integer", "epoch"),
        ([1_700_000_000, 5], "integer", None),
        ([1, Decimal("1.5")], "number", None),
        ([1, "1"], None, None),
    ],
)
def test_kinds_and_formats_are_recognised(values: list[Any], kind: str | None, form: str | None) -> None:
    found = shape([{"start_time": value} for value in values]).fields["start_time"]
    assert found.kind == kind
    if kind in ("string", "integer"):
        assert found.format == form


def test_large_number_is_a_time_only_if_its_name_says_so() -> None:
    assert shape([{"tokens": 1_700_000_000}]).fields["tokens"].format is None


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b"]), st.none() | st.integers() | st.text() | st.booleans())))
def test_order_of_the_sample_does_not_matter(rows: list[Any]) -> None:
    assert shape(rows) == shape(list(reversed(rows)))
