"""Statements from records and rows: worked examples, states, scopes, restatements, late telemetry."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.bills import DAY, at, book, cost, cursor, record, row, take
from tests.support.worked_bills import PRICES

from tallystream.agents.pricing import Book
from tallystream.agents.reconciliation.days import Reconciliation
from tallystream.schemas.billing.accounts import AccountLink
from tallystream.schemas.reconciliation import ReconciledDay
from tallystream.streams.kafka.errors import TopicRecreatedError

COSTS, BY_KEY, HOURLY = "/organization/costs", "costs by key", "completions by hour"


@pytest.fixture
def prices(tmp_path: Path) -> Book:
    return book(tmp_path, PRICES)


def causes(statement: dict[str, Any]) -> dict[str, Decimal]:
    return {name: Decimal(value) for name, value in statement["causes"].items() if value != "0"}


def check(statement: dict[str, Any]) -> dict[str, Any]:
    """Every statement fits its model and adds up, cell by cell."""
    ReconciledDay.model_validate(statement)
    if statement["causes"] is not None:
        for one in [statement, *statement["cells"]]:
            difference = Decimal(one["bill_usd"]) - Decimal(one["estimate_usd"])
            assert sum(map(Decimal, one["causes"].values())) == Decimal(one["difference_usd"]) == difference
    return statement


def contract(view: Reconciliation) -> None:
    view.record(
        record(
            COSTS,
            DAY,
            [
                cost("gpt-5.6-sol, input", "45.00", 10_000_000),
                cost("priority | gpt-5.6-sol, input", "9.00", 1_000_000),
                cost("gpt-5.6-sol, cached input", "27.00", 60_000_000),
                cost("priority | gpt-5.6-sol, cached input", "5.40", 6_000_000),
                cost("gpt-5.6-sol-2026-08-01, output", "32.40", 1_200_000),
                cost("priority | gpt-5.6-sol, output", "5.40", 100_000),
                cost("web search tool calls", "1.25"),
            ],
        )
    )
    said: dict[str, Any] = {"input_uncached": 8_000_000, "cache_read": 50_000_000, "output": 1_000_000}
    unsaid: dict[str, Any] = {"input_uncached": 2_000_000, "cache_read": 12_000_000, "output": 200_000}
    view.row(*row("codex-1", f"{DAY}T09:00:00Z", "gpt-5.6-sol", "95", **said), 0)
    view.row(*row("codex-1", f"{DAY}T10:00:00Z", "gpt-5.6-sol", "22", tier=None, **unsaid), 0)


def test_contract_discount_and_unreported_tiers_are_separated(prices: Book) -> None:
    view = Reconciliation(prices)
    contract(view)
    statement = check(take(view)["openai", "all", DAY])
    assert (statement["bill_usd"], statement["estimate_usd"], statement["difference_usd"]) == ("125.45", "117", "8.45")
    assert causes(statement) == {
        "unseen": Decimal("12.0749895"),
        "discount": Decimal("-12.4583345"),
        "tier_unknown": Decimal("7.583345"),
        "no_token_line": Decimal("1.25"),
    }
    assert statement["discount_ratio"] == "0.9"


def test_discount_is_derived_from_list_amounts(prices: Book) -> None:
    def group(model: str, kind: str | None, cost_type: str = "tokens") -> dict[str, Any]:
        return {
            "api_key_id": "apikey_1", "workspace_id": "wrkspc_1", "model": model, "service_tier": "standard",
            "context_window": "0-200k", "cost_type": cost_type, "token_type": kind,
        }  # fmt: skip

    def costs(model: str, kind: str | None, cents: str, listed: str | None = None, what: str = "tokens") -> Any:
        money = {"amount": cents, "currency": "USD", "requests": None}
        money |= {"list_amount": listed} if listed else {}
        return {"starting_at": f"{DAY}T10:00:00Z", "ending_at": f"{DAY}T11:00:00Z", "cost": money,
                "group": group(model, kind, what)}  # fmt: skip

    def used(model: str, **counts: int) -> dict[str, Any]:
        names = ("uncached_input_tokens", "cache_read_input_tokens", "output_tokens")
        return {
            "starting_at": f"{DAY}T10:00:00Z", "ending_at": f"{DAY}T11:00:00Z", "group": group(model, None),
            "usage": {name: counts.get(name, 0) for name in names}
            | {"cache_creation": {"ephemeral_5m_input_tokens": counts.get("w5", 0),
                                  "ephemeral_1h_input_tokens": counts.get("w1", 0)}},
        }  # fmt: skip

    opus, haiku, following = "claude-opus-5-5-20261001", "claude-haiku-5", "claude-next-1"
    view = Reconciliation(prices)
    view.record(
        record(
            "anthropic cost",
            DAY,
            [
                costs(opus, "uncached_input_tokens", "1900.000000", "2000.000000"),
                costs(opus, "cache_creation.ephemeral_5m_input_tokens", "2375.000000", "2500.000000"),
                costs(opus, "cache_creation.ephemeral_1h_input_tokens", "1900.000000", "2000.000000"),
                costs(opus, "output_tokens", "950.000000", "1000.000000"),
                costs(following, "output_tokens", "600.000000"),
                costs(haiku, "cache_read_input_tokens", "0.123457"),
                costs(None, None, "70.000000", what="web_search"),  # type: ignore[arg-type]
            ],
        )
    )
    view.record(
        record(
            "anthropic usage",
            DAY,
            [
                used(opus, uncached_input_tokens=4_000_000, w5=4_000_000, w1=2_000_000, output_tokens=400_000),
                used(following, output_tokens=200_000),
                used(haiku, cache_read_input_tokens=12_345_678),
            ],
        )
    )

    def see(session: str, model: str, usd: str | None, **counts: Any) -> None:
        hour = f"{DAY}T10:00:00Z"
        view.row(*row("claude-1", hour, model, usd, provider="anthropic", session=session, **counts), 0)

    see("a", "claude-opus-5-5", "67.495", input_uncached=3_999_000, cache_write_5m=6_000_000, output=400_000)
    see("b", following, None, output=190_000)
    see("c", haiku, "0.0012345678", cache_read=12_345_678)
    statement = check(take(view)["anthropic", "all", DAY])
    assert statement["bill_usd"] == "77.95123457"
    assert statement["estimate_usd"] == "67.4962345678"
    assert causes(statement) == {
        "unseen": Decimal("0.30475"),
        "kind_moved": Decimal("7.125"),
        "discount": Decimal("-3.37475"),
        "unpriced": Decimal("5.7"),
        "no_token_line": Decimal("0.7"),
        "rounding": Decimal("0.0000000022"),
    }
    assert Decimal(statement["difference_usd"]) == Decimal("10.4550000022")


NEXT = "2026-11-22"


def midnight(view: Reconciliation) -> None:
    """Costs of two days, usage by hour, and telemetry with 40,000 tokens on the other side of midnight."""
    mini, luna = "gpt-5.4-mini, output", "gpt-5.6-luna, output"
    view.record(record(COSTS, DAY, [cost(mini, "4.50", 1_000_000), cost(luna, "0E-6176", 500_000)]))
    view.record(record(COSTS, NEXT, [cost(mini, "3.60", 800_000)]))
    for day, hours in ((DAY, {9: 900_000, 23: 100_000}), (NEXT, {0: 60_000, 9: 770_000})):
        for hour in range(24):
            used = [{"model": "gpt-5.4-mini-2026-03-17", "input_tokens": 0, "output_tokens": hours.get(hour, 0)}]
            if (day, hour) == (DAY, 9):
                used.append({"model": "gpt-5.6-luna", "input_tokens": 0, "output_tokens": 500_000})
            view.record(record(HOURLY, day, used, hour=hour))

    def see(hour: str, model: str, usd: str, tokens: int) -> None:
        view.row(*row("codex-1", hour, model, usd, session=model, output=tokens), 0)

    see(f"{DAY}T09:00:00Z", "gpt-5.4-mini", "3.96", 880_000)
    see(f"{DAY}T23:00:00Z", "gpt-5.4-mini", "0.27", 60_000)
    see(f"{NEXT}T00:00:00Z", "gpt-5.4-mini", "0.45", 100_000)
    see(f"{NEXT}T09:00:00Z", "gpt-5.4-mini", "3.42", 760_000)
    see(f"{DAY}T09:00:00Z", "gpt-5.6-luna", "0.576", 480_000)


def test_timing_free_tokens_and_lag_are_separated(prices: Book) -> None:
    view = Reconciliation(prices)
    midnight(view)
    statements = take(view)
    first, second = check(statements["openai", "all", DAY]), check(statements["openai", "all", NEXT])
    cells = {cell["model"]: causes(cell) for cell in first["cells"]}
    assert cells == {
        "gpt-5.4-mini": {"unseen": Decimal("0.09"), "timing": Decimal("0.18")},
        "gpt-5.6-luna": {"free": Decimal("-0.576")},
    }
    assert causes(second) == {"unseen": Decimal("0.045"), "timing": Decimal("-0.18"), "lag": Decimal("-0.135")}


def test_day_becomes_provisional_then_settled_and_late_telemetry_reopens_it(prices: Book) -> None:
    view = Reconciliation(prices)
    view.record(record(COSTS, DAY, [cost("gpt-5.4-mini, output", "4.50", 1_000_000)], f"{DAY}T12:00:00Z"))
    assert take(view)["openai", "all", DAY]["state"] == "open"
    view.cursor(cursor(COSTS, "2026-11-17T00:00:00Z", "2026-11-22T02:00:00Z"))
    after = take(view)["openai", "all", DAY]
    assert (after["state"], after["as_of"]) == ("provisional", "2026-11-22T02:00:00Z")
    view.cursor(cursor(COSTS, "2026-11-22T00:00:00Z", "2026-11-30T02:00:00Z"))
    assert take(view)["openai", "all", DAY]["state"] == "settled"
    late_ms = int(at("2026-12-01T00:00:00Z").timestamp() * 1000)
    view.row(*row("codex-1", f"{DAY}T09:00:00Z", "gpt-5.4-mini", "4.5", output=1_000_000), late_ms)
    reopened = take(view)["openai", "all", DAY]
    assert reopened["state"] == "provisional"
    assert (reopened["estimate_usd"], reopened["difference_usd"]) == ("4.5", "0")
    assert reopened["telemetry_as_of"] == "2026-12-01T00:00:00Z"
    view.cursor(cursor(COSTS, "2026-11-23T00:00:00Z", "2026-12-01T02:00:00Z"))
    assert take(view)["openai", "all", DAY]["state"] == "settled"


def test_restatement_is_a_new_statement(prices: Book) -> None:
    view = Reconciliation(prices)
    contract(view)
    before = take(view)["openai", "all", DAY]
    assert before["restated"] is None
    rows = [cost("gpt-5.6-sol, input", "54.00", 12_000_000)]
    view.record(record(COSTS, DAY, rows, "2026-11-25T12:00:00Z"))
    after = check(take(view, 101)["openai", "all", DAY])
    restated = after["restated"]
    assert restated["from_bill_usd"] == "125.45"
    assert restated["change_usd"] == "-71.45"
    assert sum(map(Decimal, restated["causes"].values())) == Decimal("-71.45")
    for name, value in restated["causes"].items():
        assert Decimal(value) == Decimal(after["causes"][name]) - Decimal(before["causes"][name])


def test_trailing_zeros_are_not_a_restatement(prices: Book) -> None:
    view = Reconciliation(prices)
    contract(view)
    take(view)
    contract(view)
    assert take(view, 120) == {}


def test_missing_answer_is_not_treated_as_zero(prices: Book) -> None:
    view = Reconciliation(prices)
    contract(view)
    view.row(*row("codex-1", f"{NEXT}T09:00:00Z", "gpt-5.4-mini", "4.5", output=1_000_000), 0)
    statement = check(take(view)["openai", "all", NEXT])
    assert (statement["state"], statement["bill_usd"], statement["causes"]) == ("partial", None, None)
    assert statement["estimate_usd"] == "4.5"
    assert statement["reason"] == "the bill of this day has not been polled"


@pytest.mark.parametrize("value", [None, "about five", True])
def test_unreadable_amount_makes_the_day_partial(prices: Book, value: Any) -> None:
    view = Reconciliation(prices)
    view.record(record(COSTS, DAY, [cost("a, input", value, 1), cost("b, input", "2", 1)]))
    statement = check(take(view)["openai", "all", DAY])
    assert statement["state"] == "partial"
    assert "'a, input'" in statement["reason"]
    assert statement["bill_usd"] is None


def test_other_currencies_are_shown_but_not_added(prices: Book) -> None:
    view = Reconciliation(prices)
    rows = [cost("whisper", "2.50"), cost("whisper", "3.10", currency="eur"), cost("tts", "1", currency="eur")]
    view.record(record(COSTS, DAY, rows))
    statement = check(take(view)["openai", "all", DAY])
    assert statement["bill_usd"] == "2.5"
    assert statement["other_currencies"] == {"EUR": "4.1"}


def link(connection: str, *, project: str | None = None, key: str | None = None, plan: bool = False) -> AccountLink:
    return AccountLink(
        connection_id=connection, provider="openai", billing="plan" if plan else "api", project_id=project,
        api_key_id=key, mapped_at=datetime(2026, 11, 20, tzinfo=UTC),
    )  # fmt: skip


def test_scopes_follow_mappings_and_add_up_to_the_organisation(prices: Book) -> None:
    view = Reconciliation(prices)
    mini = "gpt-5.4-mini, output"
    by_project = [
        cost(mini, "4.50", 1_000_000, project="p1"),
        cost(mini, "9.00", 2_000_000, project="p2"),
        cost("whisper", "0.25", project="p3"),
    ]
    by_key = [
        cost(mini, "4.50", 1_000_000, key="k1"), cost(mini, "2.70", 600_000, key="k2"),
        cost(mini, "6.30", 1_400_000, key="k3"), cost("whisper", "0.25"),
    ]  # fmt: skip
    view.record(record(COSTS, DAY, by_project))
    view.record(record(BY_KEY, DAY, by_key))
    for name, tokens, usd in (("a", 900_000, "4.05"), ("b", 600_000, "2.7"), ("c", 100_000, "0.45"), ("d", 7, None)):
        view.row(*row(name, f"{DAY}T09:00:00Z", "gpt-5.4-mini", usd, output=tokens), 0)
    assert set(take(view)) == {("openai", "all", DAY)}
    for one in (link("a", project="p1"), link("b", key="k2"), link("d", plan=True)):
        view.link(one.key, one)
    statements = {scope: check(said) for (_, scope, _), said in take(view, 101).items()}
    bills = {scope: said["bill_usd"] for scope, said in statements.items()}
    assert bills == {"all": "0", "a": "4.5", "b": "2.7", "outside": "6.55", "unmapped": "0", "plan": None}
    assert statements["b"]["difference_usd"] == "0"
    assert causes(statements["a"]) == {"unseen": Decimal("0.45")}
    assert causes(statements["unmapped"]) == {"overseen": Decimal("-0.45")}
    assert causes(statements["outside"]) == {"unseen": Decimal("6.3"), "no_token_line": Decimal("0.25")}
    assert statements["plan"]["state"] == "provisional" or statements["plan"]["cells"] == []
    # A key of a project that is mapped as a whole cannot be separated from it.
    joined = link("b", project="p2")
    view.link(joined.key, joined)
    view.record(record(HOURLY, DAY, [{"model": "m", "project_id": "p2", "api_key_id": "k2"}], hour=3))
    statements = {scope: check(said) for (_, scope, _), said in take(view, 102).items()}
    assert statements["b"]["bill_usd"] == "9"
    assert statements["outside"]["bill_usd"] == "0.25"


def test_scope_of_keys_waits_for_costs_by_key(prices: Book) -> None:
    view = Reconciliation(prices)
    contract(view)
    one = link("codex-1", key="k1")
    view.link(one.key, one)
    statement = check(take(view)["openai", "codex-1", DAY])
    assert statement["state"] == "partial"
    assert "costs by key" in statement["reason"]


def test_plan_does_not_change_other_scopes(prices: Book) -> None:
    view, other = Reconciliation(prices), Reconciliation(prices)
    one = link("codex-plan", plan=True)
    for each in (view, other):
        contract(each)
        each.link(one.key, one)
    other.row(*row("codex-plan", f"{DAY}T09:00:00Z", "gpt-5.4-mini", "45", output=10_000_000), 0)
    without, with_plan = take(view), take(other)
    assert with_plan.pop(("openai", "plan", DAY))["estimate_usd"] == "45"
    assert with_plan == without


def test_agent_that_reads_again_continues_in_the_next_generation(prices: Book) -> None:
    before, anew = Reconciliation(prices), Reconciliation(prices)
    contract(before)
    messages = before.take(1000)
    for key, value in messages:
        anew.published.apply(key, value)
    anew.record(record(COSTS, DAY, [cost("whisper", "1")]))
    assert take(anew, 10)["openai", "all", DAY]["version"] == [1, 10]
    anew.record(record(COSTS, DAY, [cost("whisper", "2")], "2026-11-25T00:00:00Z"))
    with pytest.raises(TopicRecreatedError):
        anew.take(9)


def test_late_statement_of_a_paused_agent_is_overwritten(prices: Book) -> None:
    view = Reconciliation(prices)
    contract(view)
    ((key, old),) = view.take(10)
    view.record(record(COSTS, DAY, [cost("whisper", "1")], "2026-11-25T00:00:00Z"))
    ((_, new),) = view.take(11)
    view.published.apply(key, new)
    assert view.take(11) == []
    view.published.apply(key, old)
    ((again, value),) = view.take(12)
    assert again == key
    assert take(view) == {}
    assert b'"bill_usd":"1"' in value
