"""Scopes, suggestions, midnight shifts, decimals, personal data and explanations."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.support.bills import DAY, cost, record, row, take

from tallystream.agents.pricing import Book
from tallystream.agents.reconciliation import decimals
from tallystream.agents.reconciliation.days import Reconciliation
from tallystream.agents.reconciliation.metrics import ReconciliationMetrics
from tallystream.agents.reconciliation.report import explain, total
from tallystream.agents.reconciliation.scopes import ALL, OUTSIDE, PLAN, UNMAPPED, Scopes
from tallystream.agents.reconciliation.seen import kind_costs
from tallystream.agents.reconciliation.split import CAUSES
from tallystream.agents.reconciliation.suggest import suggest
from tallystream.agents.reconciliation.timing import moved_by_days, moved_by_hours
from tallystream.schemas.billing.accounts import AccountLink
from tallystream.streams.poller.personal import without_people

NAMES = st.sampled_from("abcd")


def link(connection: str, **place: Any) -> AccountLink:
    return AccountLink(
        connection_id=connection, provider="openai", mapped_at=datetime(2026, 11, 20, tzinfo=UTC), **place
    )


links = st.builds(
    lambda connection, key, project: link(connection, **({"api_key_id": key} if key else {"project_id": project})),
    NAMES, st.one_of(st.none(), NAMES.map("k{}".format)), NAMES.map("p{}".format),
)  # fmt: skip


@given(st.lists(links, min_size=1), st.dictionaries(NAMES.map("k{}".format), NAMES.map("p{}".format)))
def test_linked_keys_and_connections_share_a_scope(given_links: list[AccountLink], projects_of: dict[str, str]) -> None:
    scopes = Scopes(given_links, projects_of)
    for one in given_links:
        own = scopes.of_connection(one.connection_id)
        assert own == scopes.of_account(one.project_id, one.api_key_id)
        assert one.connection_id in scopes.members(own).connections
    mapped = {one.project_id for one in given_links}
    for key, project in projects_of.items():
        if project in mapped and any(one.api_key_id == key for one in given_links):
            assert scopes.of_account(None, key) == scopes.of_account(project, None), "a key of a mapped project"
    assert Scopes(reversed(given_links), projects_of).scopes == scopes.scopes


def test_unmapped_connections_have_their_own_scope() -> None:
    assert Scopes([], {}).of_connection("c") == Scopes([], {}).of_account("p", "k") == ALL
    scopes = Scopes([link("a", project_id="p"), link("b", billing="plan")], {})
    assert (scopes.of_connection("b"), scopes.of_connection("c")) == (PLAN, UNMAPPED)
    assert scopes.of_account("q", None) == OUTSIDE
    only_plan = Scopes([link("b", billing="plan")], {})
    assert (only_plan.of_connection("b"), only_plan.of_connection("c"), only_plan.of_account("p", None)) == (
        PLAN, ALL, ALL,
    )  # fmt: skip


def test_usage_paid_by_a_plan_is_not_compared_with_a_bill() -> None:
    """Also on a connection whose other usage is the API's, and is reconciled."""
    view = Reconciliation(Book())
    view.record(record("/organization/costs", DAY, [cost("gpt-5-codex, output", "10", 1_000_000)]))
    whole = orjson.loads(row("c", f"{DAY}T09:00:00Z", "gpt-5-codex", "10", output=1_000_000)[1])
    plan = whole["buckets"][0] | {"cost_usd": "5", "output": 500_000, "attribution": {"billing": "plan"}}
    whole["buckets"].append(plan)
    view.row(b"c|s|h", orjson.dumps(whole), 1)
    statements = take(view)
    ((_, own),) = [item for item in statements.items() if item[1]["scope"] == ALL]
    ((_, apart),) = [item for item in statements.items() if item[1]["scope"] == PLAN]
    assert (own["estimate_usd"], own["seen_tokens"], own["connections"]) == ("10", 1_000_000, ["c"])
    assert (apart["estimate_usd"], apart["seen_tokens"], apart["connections"]) == ("5", 500_000, ["c"])
    assert apart["bill_usd"] is None


def test_key_with_matching_hours_is_suggested() -> None:
    hours = {f"{DAY}T{hour:02}:00:00Z": 1000 * (hour + 1) for hour in range(8)}
    other = {hour: 90_000 - tokens for hour, tokens in hours.items()}
    keys = {"k1": {hour: tokens + 10 for hour, tokens in hours.items()}, "k2": other}
    (found,) = suggest({"codex-1": hours}, keys, {"k1": "p1"})
    assert (found.connection_id, found.api_key_id, found.project_id, found.hours) == ("codex-1", "k1", "p1", 8)
    assert found.match > Fraction(99, 100)
    assert suggest({"codex-1": {f"{DAY}T01:00:00Z": 5}}, keys, {}) == [], "an hour alone says nothing"


@given(*[st.integers(0, 1000)] * 4)
def test_midnight_shift_never_exceeds_either_sides_difference(a: int, b: int, c: int, d: int) -> None:
    moved = moved_by_hours(a, b, c, d)
    assert abs(moved) <= min(abs(a - b), abs(c - d))
    assert moved_by_hours(b, a, d, c) == -moved
    assert -b <= moved_by_days(a - b, c - d, b, d) <= d


@given(st.dictionaries(st.sampled_from(CAUSES), st.fractions(max_denominator=10**9), min_size=1), st.integers(0, 25))
def test_written_parts_add_up(causes: dict[str, Fraction], places: int) -> None:
    whole = Fraction(round(sum(causes.values()) * 10**places), 10**places)
    causes["rounding"] = causes.get("rounding", Fraction(0)) + whole - sum(causes.values())
    written = decimals.parts(causes, whole)
    assert sum(map(Fraction, written.values())) == whole
    for name, value in causes.items():
        assert abs(Fraction(written[name]) - value) < Fraction(1, 10**decimals.DIGITS)


@given(st.integers(0, 10**15), *[st.integers(0, 10**7)] * 3)
def test_dollars_of_a_row_are_split_exactly(cost_pico: int, fresh: int, cached: int, output: int) -> None:
    counts = {k: n for k, n in (("input_uncached", fresh), ("cache_read", cached), ("output", output)) if n}
    for model in ("gpt-5-codex", "gpt-5.4", "nobody-knows-it"):
        card = Book().card("openai", model, None, 1_795_262_400 * 10**9)
        parts = list(kind_costs(counts, cost_pico, card))
        assert sum(part[3] or 0 for part in parts) == (cost_pico if counts else 0)
        for kind, tokens in counts.items():
            assert sum(part[2] for part in parts if part[1] == kind) == tokens


def test_people_are_removed_from_rows_before_writing() -> None:
    rows: list[dict[str, Any]] = [
        {"user_email": "ada@example.com", "user_id": "u", "line_item": "x", "name": "a key"},
        {"owner": {"user": {"id": "u", "name": "Ada", "email": "ada@example.com"}}, "name": "a key"},
        {"actor": [{"email_address": "ada@example.com", "type": "user_actor"}]},
    ]
    hashed = without_people(rows, lambda name: f"u_{len(name)}")
    assert "ada@" not in str(hashed).lower()
    assert "Ada" not in str(hashed)
    assert hashed[1] == {"owner": {"user": {"id": "u", "name": "u_3", "email": "u_15"}}, "name": "a key"}
    assert without_people(rows, None)[2] == {"actor": [{"email_address": None, "type": "user_actor"}]}


def day_with_everything() -> list[dict[str, Any]]:
    view = Reconciliation(Book())
    rows = [cost("gpt-5-codex, output", "10", 1_000_000), cost("web search tool calls", "1.25"),
            cost("whisper", "2", currency="eur")]  # fmt: skip
    view.record(record("/organization/costs", DAY, rows))
    view.row(*row("codex-1", f"{DAY}T09:00:00Z", "gpt-5-codex", "9", output=900_000), 0)
    view.row(*row("codex-1", "2026-11-22T09:00:00Z", "gpt-5-codex", "3", output=300_000), 0)
    return list(take(view).values())


def test_explanation_names_amount_cause_and_next_step() -> None:
    said = explain(day_with_everything())
    assert "the providers billed $11.25, our estimate is $9.00: the bill is $2.25 more (+25.0%)" in said
    assert "+$1.25 is for products that are not billed by token" in said
    assert "+$1.00 was billed for tokens that no telemetry has. To do: look for tools" in said
    assert "1 statement has no split, with $3.00 of estimates: the bill of this day has not been polled" in said
    assert "openai also billed 2 EUR" in said
    assert explain([]) == "Nothing was billed and nothing was seen."
    sums = total(day_with_everything())
    assert sums.document()["without_bill_usd"] == "3"


def test_reconciliation_metrics_show_the_newest_complete_day() -> None:
    registry = CollectorRegistry()
    metrics = ReconciliationMetrics(registry)
    metrics.show(day_with_everything())

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"tallystream_poller_reconciliation_{name}", {"provider": "openai", **labels})

    assert value("statements", state="partial") == value("statements", state="provisional") == 1
    assert value("bill_usd", scope="all") == 11.25
    assert value("cause_usd", scope="all", cause="unseen") == 1
    assert value("coverage_ratio", scope="all") == 0.9
    assert value("residual_ratio", scope="all") == 1 / 11.25
    assert value("book_price_ratio", scope="all") is not None
    metrics.show([])
    assert value("bill_usd", scope="all") is None, "what is not said any more is not shown either"
