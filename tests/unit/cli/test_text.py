"""Text from other people must not control a terminal or become a formula in a spreadsheet."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.cli.output.text import ago, csv_text, dollars, escape_json, short_id, stamp, visible
from tallystream.streams.service.clock import utc

HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\u202eevil\x9b31m\ufeff"


@given(st.text())
def test_terminal_control_characters_are_escaped(text: str) -> None:
    for shown in (visible(text), csv_text(text), short_id(text)):
        assert not any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in shown)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_keeps_its_meaning_with_control_characters_escaped(text: str) -> None:
    written = escape_json(json.dumps({"a": text}, ensure_ascii=False, indent=1))
    assert json.loads(written) == {"a": text}
    assert not any(unicodedata.category(one) == "Cc" and one != "\n" for one in written)


def test_hostile_text_is_escaped() -> None:
    assert visible(HOSTILE) == r"\x1b[2J\x1b]0;owned\x07\r\n\u202eevil\x9b31m\ufeff"
    assert visible("Grüße, 東京 🎉") == "Grüße, 東京 🎉"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "  =1+1"])
def test_formulas_are_marked_as_text(text: str) -> None:
    assert csv_text(text) == f"'{text}"


def test_formula_after_a_tab_is_marked_as_text() -> None:
    assert csv_text("\t=1+1") == "\\t=1+1"


def test_dollars_are_rounded_for_display() -> None:
    assert [dollars(usd) for usd in ("1234567.891", "1", "0.0423", "0.00004", "0", None)] == [
        "$1,234,567.89",
        "$1.00",
        "$0.0423",
        "<$0.0001",
        "$0.00",
        "-",
    ]


def test_ids_and_times_are_shortened_for_display() -> None:
    assert short_id("0199a213-81c0-7800-8aa1-00000000beef") == "0199a213…beef"
    assert short_id("short") == "short"
    at = utc(1_700_000_000 * 10**9)
    assert stamp(at) == "2023-11-14T22:13:20Z"
    assert [ago(at, utc((1_700_000_000 + seconds) * 10**9)) for seconds in (0, 90, 150, 86_399, 200_000)] == [
        "0 s",
        "90 s",
        "2 min",
        "23 h",
        "2 d",
    ]
