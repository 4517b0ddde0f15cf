"""Bills of the sandbox through poller, Kafka and agent: worked examples, exact to the last digit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support import worked_bills as worked
from tests.support.bill_rig import bill_rig
from tests.support.bills import at as moment
from tests.support.bills import book, row
from tests.support.worked_bills import cost_rows

from tallystream.sandbox.billed import Bill, OpenAIBill, OpenAICost
from tallystream.schemas.billing.accounts import AccountLink
from tallystream.schemas.reconciliation import ReconciledDay
from tallystream.streams.kafka.reader import latest
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]
DAY, NEXT = "2026-11-21", "2026-11-22"
NOW = moment("2026-11-24T12:00:00Z").timestamp()


def causes(statement: dict[str, Any]) -> dict[str, Decimal]:
    return {name: Decimal(value) for name, value in statement["causes"].items() if value != "0"}


def check(statement: dict[str, Any]) -> dict[str, Any]:
    """Check that every statement in the topic fits its model and adds up."""
    ReconciledDay.model_validate(statement)
    for one in [statement, *statement["cells"]]:
        if one["causes"] is not None:
            assert sum(map(Decimal, one["causes"].values())) == Decimal(one["difference_usd"])
            assert Decimal(one["bill_usd"]) - Decimal(one["estimate_usd"]) == Decimal(one["difference_usd"])
    return statement


def rig(kafka: KafkaSettings, prefix: str, bill: Bill, tmp_path: Path) -> Any:
    return bill_rig(kafka, prefix, bill, book(tmp_path, worked.PRICES), NOW)


async def test_contract_discount_and_unreported_tiers_are_separated(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    async with rig(kafka, prefix, Bill(openai=worked.contract(DAY)), tmp_path) as one:
        await one.see(cost_rows(worked.contract_seen(DAY)))
        result = await one.poll()
        assert result.failures == {}
        statement = check((await one.statements())["openai", "all", DAY])
        assert (statement["bill_usd"], statement["estimate_usd"]) == ("125.45", "117")
        assert causes(statement) == worked.CONTRACT
        assert sum(causes(statement).values()) == Decimal("8.45")
        # No address is in the topic, hashed or not, because this deployment has no key for hashing.
        for value in (await latest(kafka, one.topics.openai_records.name)).values():
            assert b"ada@example.com" not in value
            assert b"Ada Example" not in value
        # Another agent and another poll of the same bill do not change anything.
        before = await latest(kafka, one.topics.reconciliation_days.name)
        assert (await one.poll()).restated == 0
        await one.statements()
        assert await latest(kafka, one.topics.reconciliation_days.name) == before


async def test_discount_is_derived_from_list_amounts(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with rig(kafka, prefix, Bill(anthropic=worked.analytics(DAY)), tmp_path) as one:
        await one.see(cost_rows(worked.analytics_seen(DAY)))
        assert (await one.poll()).failures == {}
        statement = check((await one.statements())["anthropic", "all", DAY])
        assert (statement["bill_usd"], statement["estimate_usd"]) == ("77.95123457", "67.4962345678")
        assert causes(statement) == worked.ANALYTICS
        assert statement["difference_usd"] == "10.4550000022"


async def test_legacy_reports_replace_unavailable_analytics(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    bill = worked.analytics(DAY).model_copy(update={"analytics": False})
    async with rig(kafka, prefix, Bill(anthropic=bill), tmp_path) as one:
        await one.see(cost_rows(worked.analytics_seen(DAY)))
        assert set((await one.poll()).failures) == {"anthropic cost", "anthropic usage", "anthropic watermark"}
        statement = check((await one.statements())["anthropic", "all", DAY])
        assert statement["bill_usd"] == "77.95123457"
        # Without list amounts, the book can only be compared with the charged prices.
        assert statement["difference_usd"] == "10.4550000022"
        assert causes(statement)["kind_moved"] == Decimal("7.125")


async def test_timing_free_tokens_and_lag_are_separated(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with rig(kafka, prefix, Bill(openai=worked.midnight(DAY, NEXT)), tmp_path) as one:
        await one.see(cost_rows(worked.midnight_seen(DAY, NEXT)))
        await one.poll()
        statements = await one.statements()
        first, second = check(statements["openai", "all", DAY]), check(statements["openai", "all", NEXT])
        assert {cell["model"]: causes(cell) for cell in first["cells"]} == worked.MIDNIGHT
        assert causes(second) == worked.AFTER
        assert (first["state"], second["state"]) == ("provisional", "provisional")
        # The next poll has the rest of the second day; the lag is gone, and the change is a new statement.
        one.sandbox.restate(Bill(openai=worked.midnight(DAY, NEXT, behind=False)))
        one.clock.seconds += 7200
        assert (await one.poll()).restated == 3  # by project, by key, and how far Anthropic's data goes
        restated = check((await one.statements())["openai", "all", NEXT])
        assert causes(restated) == {"unseen": Decimal("0.045"), "timing": Decimal("-0.18")}
        assert restated["restated"]["change_usd"] == "0.135"
        assert Decimal(restated["restated"]["causes"]["lag"]) == Decimal("0.135")
        # A week later it is no longer polled.
        one.clock.seconds += 8 * 86_400
        await one.poll()
        assert (await one.statements())["openai", "all", NEXT]["state"] == "settled"


async def test_scopes_follow_the_account_mappings(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    mini = "gpt-5.4-mini, output"

    def cost(project: str, key: str, value: str, quantity: int) -> OpenAICost:
        return OpenAICost(
            day=DAY, project_id=project, api_key_id=key, line_item=mini, value=value, quantity=quantity,
            quantity_unit="tokens",
        )  # fmt: skip

    bill = OpenAIBill(
        costs=[
            cost("p1", "k1", "4.50", 1_000_000),
            cost("p2", "k2", "2.70", 600_000),
            cost("p2", "k3", "0.9", 200_000),
        ],
        keys={"p1": ["k1"], "p2": ["k2", "k3"]},
    )
    async with rig(kafka, prefix, Bill(openai=bill), tmp_path) as one:
        await one.see(
            [
                row("codex-1", f"{DAY}T09:00:00Z", "gpt-5.4-mini", "4.05", output=900_000),
                row("codex-2", f"{DAY}T09:00:00Z", "gpt-5.4-mini", "2.7", output=600_000),
                row("codex-3", f"{DAY}T09:00:00Z", "gpt-5.4-mini", "45", output=10_000_000),
            ]
        )
        await one.poll()
        for connection, place in (("codex-1", {"project_id": "p1"}), ("codex-2", {"api_key_id": "k2"})):
            await one.map(link(connection, **place))
        await one.map(link("codex-3", billing="plan"))
        statements = {scope: check(said) for (_, scope, _), said in (await one.statements()).items()}
        assert {scope: said["bill_usd"] for scope, said in statements.items()} == {
            "codex-1": "4.5", "codex-2": "2.7", "outside": "0.9", "plan": None,
        }  # fmt: skip
        assert causes(statements["codex-1"]) == {"unseen": Decimal("0.45")}
        assert causes(statements["codex-2"]) == {}
        assert statements["plan"]["estimate_usd"] == "45"


def link(connection: str, **place: Any) -> AccountLink:
    return AccountLink(
        connection_id=connection, provider="openai", mapped_at=datetime(2026, 11, 20, tzinfo=UTC), **place
    )


async def test_failed_page_keeps_known_statements(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with rig(kafka, prefix, Bill(openai=worked.contract(DAY)), tmp_path) as one:
        await one.see(cost_rows(worked.contract_seen(DAY)))
        await one.poll()
        before = await one.statements()
        one.order(match="/organization/costs", status=404)
        one.sandbox.restate(Bill(openai=OpenAIBill()))
        assert {"/organization/costs", "costs by key"} <= set((await one.poll()).failures)
        assert await one.statements() == before
