"""The table of `reconcile` for people: at any width it says what the difference is made of."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from tests.support.bills import DAY, cost, record, row, take

from tallystream.agents.pricing import Book
from tallystream.agents.reconciliation.days import Reconciliation
from tallystream.cli.output.reconcile_table import show_table


def shown(width: int) -> str:
    view = Reconciliation(Book())
    rows = [cost("gpt-5-codex, output", "11", 1_000_000), cost("in-house, output", "2", 1_000_000),
            cost("web search tool calls", "1.25")]  # fmt: skip
    view.record(record("/organization/costs", DAY, rows))
    view.row(*row("codex-1", f"{DAY}T09:00:00Z", "gpt-5-codex", "9", output=900_000), 0)
    view.row(*row("codex-1", f"{DAY}T09:00:00Z", "in-house", None, session="t", output=500_000), 0)
    out = io.StringIO()
    show_table(list(take(view).values()), "day", Console(file=out, width=width, color_system=None))
    return " ".join(out.getvalue().split())


@pytest.mark.parametrize("width", range(60, 161, 5))
def test_every_cause_is_shown_with_its_amount_at_any_width(width: int) -> None:
    text = shown(width).lower()
    wanted = {"unseen": "+$2.10", "no tokens": "+$1.25", "unpriced": "+$1.00", "book price": "+$0.90"}
    for cause, amount in wanted.items():
        assert text.count(cause) == 1, text
        assert amount in text, text


def test_no_column_for_all_other_causes_is_shown() -> None:
    assert "By cause: unseen +$2.10, no tokens +$1.25, unpriced +$1.00, book price +$0.90." in shown(60)
    assert "Other" not in shown(60)
    assert "By cause" not in shown(160)
