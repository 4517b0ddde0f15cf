"""Bills of the sandbox through poller, Kafka and agent: worked examples, exact to the last digit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.bill_rig import bill_rig
from tests.support.bills import at as moment
from tests.support.bills import book, row

from tallystream.sandbox.billed import (
    AnthropicBill,
    AnthropicCost,
    AnthropicUse,
    Bill,
    OpenAIBill,
    OpenAICost,
    OpenAIUse,
)
from tallystream.schemas.billing.accounts import AccountLink
from tallystream.schemas.reconciliation import ReconciledDay
from tallystream.streams.kafka.reader import latest
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka
DAY, NEXT = "2026-11-21", "2026-11-22"
NOW = moment("2026-11-24T12:00:00Z").timestamp()
PRICES = """
[[price]]
provider = "openai"
model = "gpt-5.6-sol"
input = "5"
cache_read = "0.5"
output = "30"
[[price]]
provider = "openai"
model = "gpt-5.6-sol"
tier = "priority"
input = "10"
cache_read = "1"
output = "60"
[[price]]
provider = "openai"
model = "gpt-5.4-mini"
input = "0.75"
output = "4.5"
[[price]]
provider = "openai"
model = "gpt-5.6-luna"
input = "0.3"
output = "1.2"
[[price]]
provider = "anthropic"
model = "claude-opus-5-5"
input = "5"
cache_read = "0.5"
cache_write_5m = "6.25"
cache_write_1h = "10"
output = "25"
[[price]]
provider = "anthropic"
model = "claude-haiku-5"
input = "0.001"
cache_read = "0.0001"
output = "1"
"""


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


def costs(day: str, *lines: tuple[str, Any, int | None]) -> list[OpenAICost]:
    return [
        OpenAICost(
            day=day, project_id="proj_a", api_key_id="key_a", line_item=item, value=value, quantity=quantity,
            quantity_unit=None if quantity is None else "tokens", user_email="ada@example.com",
        )
        for item, value, quantity in lines
    ]  # fmt: skip


def contract() -> OpenAIBill:
    return OpenAIBill(
        costs=costs(
            DAY,
            ("gpt-5.6-sol, input", "45.00000000000000000", 10_000_000),
            ("priority | gpt-5.6-sol, input", Decimal("9.0"), 1_000_000),
            ("gpt-5.6-sol, cached input", "27.00", 60_000_000),
            ("priority | gpt-5.6-sol, cached input", "5.40", 6_000_000),
            ("gpt-5.6-sol, output", "32.40", 1_200_000),
            ("priority | gpt-5.6-sol, output", "5.4E0", 100_000),
            ("web search tool calls", "1.25", None),
        ),
        keys={"proj_a": ["key_a"]},
    )


def contract_rows() -> list[tuple[bytes, bytes]]:
    said: dict[str, Any] = {"input_uncached": 8_000_000, "cache_read": 50_000_000, "output": 1_000_000}
    unsaid: dict[str, Any] = {"input_uncached": 2_000_000, "cache_read": 12_000_000, "output": 200_000}
    return [
        row("codex-1", f"{DAY}T09:00:00Z", "gpt-5.6-sol", "95", **said),
        row("codex-1", f"{DAY}T10:00:00Z", "gpt-5.6-sol", "22", tier=None, **unsaid),
    ]


def rig(kafka: KafkaSettings, prefix: str, bill: Bill, tmp_path: Path) -> Any:
    return bill_rig(kafka, prefix, bill, book(tmp_path, PRICES), NOW)


async def test_contract_discount_and_unreported_tiers_are_separated(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    async with rig(kafka, prefix, Bill(openai=contract()), tmp_path) as one:
        await one.see(contract_rows())
        result = await one.poll()
        assert result.failures == {}
        statement = check((await one.statements())["openai", "all", DAY])
        assert (statement["bill_usd"], statement["estimate_usd"]) == ("125.45", "117")
        assert causes(statement) == {
            "unseen": Decimal("12.0749895"), "discount": Decimal("-12.4583345"),
            "tier_unknown": Decimal("7.583345"), "no_token_line": Decimal("1.25"),
        }  # fmt: skip
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


def analytics() -> AnthropicBill:
    opus, haiku, coming = "claude-opus-5-5-20261001", "claude-haiku-5", "claude-next-1"
    where: dict[str, Any] = {"hour": f"{DAY}T10:00:00Z", "api_key_id": "apikey_a", "workspace_id": "wrkspc_a"}

    def cost(model: str | None, kind: str | None, cents: str, listed: str | None = None, what: str = "tokens") -> Any:
        return AnthropicCost(**where, model=model, token_type=kind, cents=cents, list_cents=listed, cost_type=what)

    return AnthropicBill(
        costs=[
            cost(opus, "uncached_input_tokens", "1900.000000", "2000.000000"),
            cost(opus, "cache_creation.ephemeral_5m_input_tokens", "2375.000000", "2500.000000"),
            cost(opus, "cache_creation.ephemeral_1h_input_tokens", "1900.000000", "2000.000000"),
            cost(opus, "output_tokens", "950.000000", "1000.000000"),
            cost(coming, "output_tokens", "600.000000"),
            cost(haiku, "cache_read_input_tokens", "0.123457"),
            cost(None, None, "70.000000", what="web_search"),
        ],
        usage=[
            AnthropicUse(
                **where, model=opus, uncached_input_tokens=4_000_000, ephemeral_5m_input_tokens=4_000_000,
                ephemeral_1h_input_tokens=2_000_000, output_tokens=400_000,
            ),
            AnthropicUse(**where, model=coming, output_tokens=200_000),
            AnthropicUse(**where, model=haiku, cache_read_input_tokens=12_345_678),
        ],
    )  # fmt: skip


def analytics_rows() -> list[tuple[bytes, bytes]]:
    def seen(session: str, model: str, usd: str | None, **counts: Any) -> tuple[bytes, bytes]:
        hour = f"{DAY}T10:00:00Z"
        return row("claude-1", hour, model, usd, provider="anthropic", session=session, tier=None, **counts)

    return [
        seen("a", "claude-opus-5-5", "67.495", input_uncached=3_999_000, cache_write_5m=6_000_000, output=400_000),
        seen("b", "claude-next-1", None, output=190_000),
        seen("c", "claude-haiku-5", "0.0012345678", cache_read=12_345_678),
    ]


async def test_discount_is_derived_from_list_amounts(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with rig(kafka, prefix, Bill(anthropic=analytics()), tmp_path) as one:
        await one.see(analytics_rows())
        assert (await one.poll()).failures == {}
        statement = check((await one.statements())["anthropic", "all", DAY])
        assert (statement["bill_usd"], statement["estimate_usd"]) == ("77.95123457", "67.4962345678")
        assert causes(statement) == {
            "unseen": Decimal("0.30475"), "kind_moved": Decimal("7.125"), "discount": Decimal("-3.37475"),
            "unpriced": Decimal("5.7"), "no_token_line": Decimal("0.7"), "rounding": Decimal("0.0000000022"),
        }  # fmt: skip
        assert statement["difference_usd"] == "10.4550000022"


async def test_legacy_reports_replace_unavailable_analytics(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    bill = analytics().model_copy(update={"analytics": False})
    async with rig(kafka, prefix, Bill(anthropic=bill), tmp_path) as one:
        await one.see(analytics_rows())
        assert set((await one.poll()).failures) == {"anthropic cost", "anthropic usage", "anthropic watermark"}
        statement = check((await one.statements())["anthropic", "all", DAY])
        assert statement["bill_usd"] == "77.95123457"
        # Without list amounts, the book can only be compared with the charged prices.
        assert statement["difference_usd"] == "10.4550000022"
        assert causes(statement)["kind_moved"] == Decimal("7.125")


def midnight() -> OpenAIBill:
    mini, luna = "gpt-5.4-mini, output", "gpt-5.6-luna, output"

    def used(hour: str, model: str, tokens: int) -> OpenAIUse:
        return OpenAIUse(hour=hour, project_id="proj_a", api_key_id="key_a", model=model, output_tokens=tokens)

    return OpenAIBill(
        costs=[
            *costs(DAY, (mini, "4.50", 1_000_000), (luna, "0E-6176", 500_000)),
            *costs(NEXT, (mini, "3.60", 800_000)),
        ],
        usage=[
            used(f"{DAY}T09:00:00Z", "gpt-5.4-mini-2026-03-17", 900_000),
            used(f"{DAY}T23:00:00Z", "gpt-5.4-mini-2026-03-17", 100_000),
            used(f"{DAY}T09:00:00Z", "gpt-5.6-luna", 500_000),
            used(f"{NEXT}T00:00:00Z", "gpt-5.4-mini-2026-03-17", 60_000),
            used(f"{NEXT}T09:00:00Z", "gpt-5.4-mini-2026-03-17", 770_000),
        ],
        keys={"proj_a": ["key_a"]},
    )


async def test_timing_free_tokens_and_lag_are_separated(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    mini, luna = "gpt-5.4-mini", "gpt-5.6-luna"
    rows = [
        row("codex-1", f"{DAY}T09:00:00Z", mini, "3.96", session="a", output=880_000),
        row("codex-1", f"{DAY}T23:00:00Z", mini, "0.27", session="a", output=60_000),
        row("codex-1", f"{NEXT}T00:00:00Z", mini, "0.45", session="a", output=100_000),
        row("codex-1", f"{NEXT}T09:00:00Z", mini, "3.42", session="a", output=760_000),
        row("codex-1", f"{DAY}T09:00:00Z", luna, "0.576", session="b", output=480_000),
    ]
    async with rig(kafka, prefix, Bill(openai=midnight()), tmp_path) as one:
        await one.see(rows)
        await one.poll()
        statements = await one.statements()
        first, second = check(statements["openai", "all", DAY]), check(statements["openai", "all", NEXT])
        assert {cell["model"]: causes(cell) for cell in first["cells"]} == {
            mini: {"unseen": Decimal("0.09"), "timing": Decimal("0.18")},
            luna: {"free": Decimal("-0.576")},
        }
        assert causes(second) == {"unseen": Decimal("0.045"), "timing": Decimal("-0.18"), "lag": Decimal("-0.135")}
        assert (first["state"], second["state"]) == ("provisional", "provisional")
        # The next poll has the rest of the second day; the lag is gone, and the change is a new statement.
        later = midnight()
        later.costs[2] = costs(NEXT, ("gpt-5.4-mini, output", "3.735", 830_000))[0]
        one.sandbox.restate(Bill(openai=later))
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
    async with rig(kafka, prefix, Bill(openai=contract()), tmp_path) as one:
        await one.see(contract_rows())
        await one.poll()
        before = await one.statements()
        one.order(match="/organization/costs", status=404)
        one.sandbox.restate(Bill(openai=OpenAIBill()))
        assert {"/organization/costs", "costs by key"} <= set((await one.poll()).failures)
        assert await one.statements() == before
