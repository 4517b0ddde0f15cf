"""The entity of a provider's bill of a day: all account scopes together, and causes that add up to the difference."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from tests.support.bills import DAY, cost, record, row, take
from tests.support.stored_rows import StoredRows

from tallystream.agents.port_sink import blueprints
from tallystream.agents.port_sink.documents.bills import BillDayDocuments
from tallystream.agents.port_sink.documents.feeds import StatementFeed
from tallystream.agents.port_sink.mapping import Mapper, default_text
from tallystream.agents.port_sink.mapping.entities import rules
from tallystream.agents.pricing import Book
from tallystream.agents.reconciliation.days import Reconciliation
from tallystream.schemas import keys
from tallystream.schemas.billing.accounts import AccountLink
from tallystream.streams.kafka.global_table import StoredRow

KNOWN = rules(blueprints.load(session_hours=True))
HOUR = f"{DAY}T09:00:00Z"


class Kept(StoredRows):
    """The rows that a sink keeps of statements."""

    def __init__(self, statements: list[dict[str, Any]]) -> None:
        super().__init__()
        for one in statements:
            key = keys.join(one["provider"], one["scope"], one["day"])
            message: Any = SimpleNamespace(key=key, value=orjson.dumps(one), offset=1, partition=0, timestamp=1)
            for kept in StatementFeed("t").rows(message):
                assert kept.value is not None
                self.rows[kept.key] = StoredRow(kept.version, 1, kept.value)


def documents(statements: list[dict[str, Any]]) -> dict[tuple[str, ...], Any]:
    kind, kept = BillDayDocuments(), Kept(statements)
    found: dict[tuple[str, ...], Any] = {}
    for key in kind.keys(kept):
        document = kind.build(kept, key)
        assert document is not None
        (found[keys.split(key)],) = document.records
    return found


def statements_of(amounts: tuple[str, str], *, plan: bool = False) -> list[dict[str, Any]]:
    """Return the statements of a day with two mapped projects, and perhaps a connection that a plan pays for."""
    view = Reconciliation(Book())
    rows = [cost("gpt-5-codex, output", usd, 500_000, project=name) for name, usd in zip("ab", amounts, strict=True)]
    view.record(record("/organization/costs", DAY, [*rows, cost("web search tool calls", "1.25", project="c")]))
    places: list[dict[str, Any]] = [{"project_id": "a"}, {"project_id": "b"}]
    for number, place in enumerate([*places, {"billing": "plan"}] if plan else places):
        link = AccountLink(
            connection_id=f"codex-{number}", provider="openai", mapped_at=datetime(2026, 11, 20, tzinfo=UTC), **place
        )
        view.link(link.key, link)
        view.row(*row(link.connection_id, HOUR, "gpt-5-codex", "4.5", output=450_000), 0)
    return list(take(view).values())


dollars = st.decimals(1, 10**6, places=20, allow_nan=False).map(lambda amount: f"{amount:f}")


@given(st.tuples(dollars, dollars), st.booleans())
def test_scopes_of_a_day_become_one_entity_with_summed_causes(amounts: tuple[str, str], plan: bool) -> None:
    found = documents(statements_of(amounts, plan=plan))
    one = found[DAY, "openai"]
    assert len(found) == 1
    assert Fraction(one["bill_usd"]) == sum(map(Fraction, amounts)) + Fraction("1.25")
    assert Fraction(one["bill_usd"]) - Fraction(one["estimate_usd"]) == Fraction(one["difference_usd"])
    assert sum(map(Fraction, one["causes"].values())) == Fraction(one["difference_usd"])
    assert one["estimate_usd"] == "9", "what a plan pays for is no part of it"
    assert one["plan_usd"] == ("4.5" if plan else "0")
    assert (one["coverage"], one["state"]) == (Decimal("0.9"), "provisional")


def test_default_mapping_creates_entities_only_for_polled_days() -> None:
    statements = statements_of(("5", "5"))
    waiting = next(one for one in statements if one["scope"] == "codex-0") | {
        "day": "2026-11-22", "state": "partial", "reason": "the bill of this day has not been polled", "bill_usd": None,
        "difference_usd": None, "causes": None, "billed_tokens": None, "as_of": None, "cells": [],
    }  # fmt: skip
    found = documents([*statements, waiting])
    late = found["2026-11-22", "openai"]
    assert (late["bill_usd"], late["difference"], late["estimate_usd"]) == (None, None, "4.5")
    assert late["reason"] == "the bill of this day has not been polled"
    mapped = Mapper(default_text()).run("bill-day", [(one, {}) for one in found.values()], KNOWN)
    assert mapped.failures == []
    ((_, entity),) = mapped.entities
    assert (entity.key.blueprint, entity.key.identifier) == ("coding_agent_bill_day", f"openai-{DAY}")
    properties = entity.body["properties"]
    assert properties | {"explanation": None} == {
        "date": f"{DAY}T00:00:00Z", "provider": "openai", "state": "provisional", "bill_usd": 11.25,
        "bill_exact": "11.25", "estimate_usd": 9, "difference_usd": 2.25, "difference_exact": "2.25",
        "coverage": 0.9, "explanation": None, "unseen_usd": 1, "no_token_line_usd": 1.25,
        "overseen_usd": 0, "timing_usd": 0, "lag_usd": 0, "discount_usd": 0, "book_price_usd": 0, "free_usd": 0,
        "unpriced_usd": 0, "tier_unknown_usd": 0, "kind_moved_usd": 0, "rounding_usd": 0,
    }  # fmt: skip
    assert "the bill is $2.25 more (+25.0%)" in properties["explanation"]
