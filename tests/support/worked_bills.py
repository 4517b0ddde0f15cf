"""Three worked examples: what two providers bill, what telemetry has, and the causes that follow, to the last digit.

1 `contract`   OpenAI: a contract at 10% off, a fifth of the tokens without a tier, a product
2 `analytics`  Anthropic: list amounts at 5% off, writes of another lifetime, a model without a price, rounding
3 `midnight`   OpenAI, two days: a request over midnight, a free allowance, costs that are behind the usage report
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from tests.support.bills import row
from tests.support.otlp_bodies import Group, Record, codex_response, protobuf

from tallystream.sandbox.billed import AnthropicBill, AnthropicCost, AnthropicUse, OpenAIBill, OpenAICost, OpenAIUse

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
MINI, SOL, LUNA = "gpt-5.4-mini", "gpt-5.6-sol", "gpt-5.6-luna"
OPUS, HAIKU, COMING = "claude-opus-5-5", "claude-haiku-5", "claude-next-1"


def dollars(**named: str) -> dict[str, Decimal]:
    return {name: Decimal(value) for name, value in named.items()}


CONTRACT = dollars(unseen="12.0749895", discount="-12.4583345", tier_unknown="7.583345", no_token_line="1.25")
ANALYTICS = dollars(
    unseen="0.30475", kind_moved="7.125", discount="-3.37475", unpriced="5.7", no_token_line="0.7",
    rounding="0.0000000022",
)  # fmt: skip
MIDNIGHT = {
    MINI: dollars(unseen="0.09", timing="0.18"),
    LUNA: dollars(free="-0.576"),
}
"""Of the first day, by model."""
AFTER = dollars(unseen="0.045", timing="-0.18", lag="-0.135")
"""Of the second day."""


class SeenResponse(NamedTuple):
    """One response as telemetry has it; `usd` is its cost by the book above."""

    hour: str
    model: str
    usd: str | None
    counts: dict[str, int]
    session: str = "s"
    tier: str | None = None
    anthropic: bool = False


def cost_rows(seen: Iterable[SeenResponse]) -> list[tuple[bytes, bytes]]:
    """Return what a worker would write of it to `cost.session-hours`."""
    return [
        row(
            "claude-1" if one.anthropic else "codex-1", one.hour, one.model, one.usd, session=one.session,
            tier=one.tier, provider="anthropic" if one.anthropic else "openai", **one.counts,
        )
        for one in seen
    ]  # fmt: skip


def telemetry(seen: Iterable[SeenResponse], *, anthropic: bool) -> bytes:
    """Return the OTLP request of Codex, or of Claude Code, with the responses of its provider."""
    mine = [one for one in seen if one.anthropic is anthropic]
    if anthropic:
        resource = {"service.name": "claude-code"}
        return protobuf([Group([_claude(one) for one in mine], dict(resource), "com.anthropic.claude_code.events")])
    return protobuf([Group([_codex(one) for one in mine])])


def _codex(one: SeenResponse) -> Record:
    cached, counts = one.counts.get("cache_read", 0), one.counts
    response = codex_response(
        one.session, one.model, _ns(one), whole=counts.get("input_uncached", 0) + cached, cached=cached, written=0,
        output=counts.get("output", 0), reasoning=0,
    )  # fmt: skip
    return response.having(service_tier=one.tier) if one.tier else response


def _claude(one: SeenResponse) -> Record:
    get = one.counts.get
    return Record(
        [
            ("event.name", "api_request"), ("session.id", one.session), ("model", one.model),
            ("input_tokens", get("input_uncached", 0)), ("cache_read_tokens", get("cache_read", 0)),
            ("cache_creation_tokens", get("cache_write_5m", 0)), ("output_tokens", get("output", 0)),
            ("request_id", f"req_{one.session}"),
        ],
        time_ns=_ns(one), observed_ns=_ns(one), event_name="claude_code.api_request",
    )  # fmt: skip


def _ns(one: SeenResponse) -> int:
    return int(datetime.fromisoformat(one.hour).timestamp()) * 10**9


# -- 1


def openai_costs(day: str, *lines: tuple[str, Any, int | None]) -> list[OpenAICost]:
    return [
        OpenAICost(
            day=day, project_id="proj_a", api_key_id="key_a", line_item=item, value=value, quantity=quantity,
            quantity_unit=None if quantity is None else "tokens", user_email="ada@example.com",
        )
        for item, value, quantity in lines
    ]  # fmt: skip


def contract(day: str) -> OpenAIBill:
    """Bill $125.45, estimate $117."""
    return OpenAIBill(
        costs=openai_costs(
            day,
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


def contract_seen(day: str) -> list[SeenResponse]:
    said = {"input_uncached": 8_000_000, "cache_read": 50_000_000, "output": 1_000_000}
    unsaid = {"input_uncached": 2_000_000, "cache_read": 12_000_000, "output": 200_000}
    return [
        SeenResponse(f"{day}T09:00:00Z", SOL, "95", said, tier="default"),
        SeenResponse(f"{day}T10:00:00Z", SOL, "22", unsaid),
    ]


# -- 2


def analytics(day: str) -> AnthropicBill:
    """Bill $77.95123457, estimate $67.4962345678."""
    opus = f"{OPUS}-20261001"
    where: dict[str, Any] = {"hour": f"{day}T10:00:00Z", "api_key_id": "apikey_a", "workspace_id": "wrkspc_a"}

    def cost(model: str | None, kind: str | None, cents: str, listed: str | None = None, what: str = "tokens") -> Any:
        return AnthropicCost(**where, model=model, token_type=kind, cents=cents, list_cents=listed, cost_type=what)

    return AnthropicBill(
        costs=[
            cost(opus, "uncached_input_tokens", "1900.000000", "2000.000000"),
            cost(opus, "cache_creation.ephemeral_5m_input_tokens", "2375.000000", "2500.000000"),
            cost(opus, "cache_creation.ephemeral_1h_input_tokens", "1900.000000", "2000.000000"),
            cost(opus, "output_tokens", "950.000000", "1000.000000"),
            cost(COMING, "output_tokens", "600.000000"),
            cost(HAIKU, "cache_read_input_tokens", "0.123457"),
            cost(None, None, "70.000000", what="web_search"),
        ],
        usage=[
            AnthropicUse(
                **where, model=opus, uncached_input_tokens=4_000_000, ephemeral_5m_input_tokens=4_000_000,
                ephemeral_1h_input_tokens=2_000_000, output_tokens=400_000,
            ),
            AnthropicUse(**where, model=COMING, output_tokens=200_000),
            AnthropicUse(**where, model=HAIKU, cache_read_input_tokens=12_345_678),
        ],
    )  # fmt: skip


def analytics_seen(day: str) -> list[SeenResponse]:
    at = f"{day}T10:00:00Z"
    opus = {"input_uncached": 3_999_000, "cache_write_5m": 6_000_000, "output": 400_000}
    return [
        SeenResponse(at, OPUS, "67.495", opus, "a", anthropic=True),
        SeenResponse(at, COMING, None, {"output": 190_000}, "b", anthropic=True),
        SeenResponse(at, HAIKU, "0.0012345678", {"cache_read": 12_345_678}, "c", anthropic=True),
    ]


# -- 3


def midnight(day: str, following: str, *, behind: bool = True) -> OpenAIBill:
    """Bill $4.50 and $3.60, estimates $4.806 and $3.87; not `behind`: the second day's costs have caught up."""
    mini, luna = f"{MINI}, output", f"{LUNA}, output"

    def used(hour: str, model: str, tokens: int) -> OpenAIUse:
        return OpenAIUse(hour=hour, project_id="proj_a", api_key_id="key_a", model=model, output_tokens=tokens)

    second = (mini, "3.60", 800_000) if behind else (mini, "3.735", 830_000)
    return OpenAIBill(
        costs=[
            *openai_costs(day, (mini, "4.50", 1_000_000), (luna, "0E-6176", 500_000)),
            *openai_costs(following, second),
        ],
        usage=[
            used(f"{day}T09:00:00Z", f"{MINI}-2026-03-17", 900_000),
            used(f"{day}T23:00:00Z", f"{MINI}-2026-03-17", 100_000),
            used(f"{day}T09:00:00Z", LUNA, 500_000),
            used(f"{following}T00:00:00Z", f"{MINI}-2026-03-17", 60_000),
            used(f"{following}T09:00:00Z", f"{MINI}-2026-03-17", 770_000),
        ],
        keys={"proj_a": ["key_a"]},
    )


def midnight_seen(day: str, following: str) -> list[SeenResponse]:
    def mini(hour: str, usd: str, tokens: int) -> SeenResponse:
        return SeenResponse(hour, MINI, usd, {"output": tokens}, "m", tier="default")

    return [
        mini(f"{day}T09:00:00Z", "3.96", 880_000),
        mini(f"{day}T23:00:00Z", "0.27", 60_000),
        mini(f"{following}T00:00:00Z", "0.45", 100_000),
        mini(f"{following}T09:00:00Z", "3.42", 760_000),
        SeenResponse(f"{day}T09:00:00Z", LUNA, "0.576", {"output": 480_000}, "l", tier="default"),
    ]
