"""A month of generated requests: each known cause of the difference must be found with its true amount.

Telemetry of every 20th request is lost, one model costs 10% more than the book says, another provider gives a discount
of 5%, a model's priority requests do not say their tier, requests end after midnight, and a bill is restated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.support.bill_rig import bill_rig
from tests.support.bills import at, book, row

from tallystream.agents.reconciliation.report import explain, total
from tallystream.sandbox.billed import (
    AnthropicBill,
    AnthropicCost,
    AnthropicUse,
    Bill,
    OpenAIBill,
    OpenAICost,
    OpenAIUse,
)
from tallystream.schemas import exact
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka
DAYS = [f"2026-10-{day:02}" for day in range(1, 32)]
NOW = at("2026-11-01T12:00:00Z").timestamp()
PRICES = """
[[price]]
provider = "openai"
model = "gpt-5.4-mini"
input = "0.75"
output = "4.5"
[[price]]
provider = "openai"
model = "gpt-5.6-sol"
input = "5"
output = "30"
[[price]]
provider = "openai"
model = "gpt-5.6-luna"
input = "1"
output = "6"
[[price]]
provider = "openai"
model = "gpt-5.6-luna"
tier = "priority"
input = "2"
output = "12"
[[price]]
provider = "anthropic"
model = "claude-opus-5-5"
input = "5"
output = "25"
"""
MINI, SOL, LUNA, OPUS = "gpt-5.4-mini", "gpt-5.6-sol", "gpt-5.6-luna", "claude-opus-5-5"
BOOK = {MINI: ("0.75", "4.5"), SOL: ("5", "30"), LUNA: ("1", "6"), OPUS: ("5", "25")}
KINDS = ("input_uncached", "output")
SHORT = "2026-10-28"
"""The day whose bill is incomplete at first."""


@dataclass(frozen=True)
class Request:
    model: str
    day: str
    hour: int
    input: int
    output: int
    tier: str = "standard"
    said: bool = True
    lost: bool = False
    seen_at: str | None = None
    """The hour in telemetry, if it differs."""

    def tokens(self, kind: str) -> int:
        return self.input if kind == "input_uncached" else self.output

    def price(self, kind: str) -> Fraction:
        """Dollars a token by the book."""
        plain = Fraction(BOOK[self.model][KINDS.index(kind)]) / 10**6
        return 2 * plain if self.tier == "priority" else plain

    def charged(self, kind: str) -> Fraction:
        factor = {SOL: Fraction(11, 10), OPUS: Fraction(19, 20)}.get(self.model, Fraction(1))
        return self.price(kind) * factor


def requests() -> Iterator[Request]:
    random, number = Random(7), 0
    for day, following in zip(DAYS, [*DAYS[1:], None], strict=True):
        for model in (MINI, SOL, LUNA, OPUS):
            for hour in range(1, 23):
                number += 1
                size = random.randrange(1000, 90_000), random.randrange(100, 9000)
                if model == LUNA:
                    priority = number % 3 == 0
                    yield Request(model, day, hour, *size, "priority" if priority else "standard", said=not priority)
                else:
                    yield Request(model, day, hour, *size, lost=number % 20 == 0)
        if following is not None:
            yield Request(MINI, day, 23, 50_000, 7000, seen_at=f"{following}T00:00:00Z")


def bill(sent: list[Request], *, short: bool) -> Bill:
    """The providers' answers; with `short`, a tenth of one day's output of one model is not billed yet."""
    amounts: dict[tuple[str, str, str, str], list[Any]] = defaultdict(lambda: [Fraction(0), 0])
    usage, analytics, used = list[OpenAIUse](), list[AnthropicCost](), list[AnthropicUse]()
    for one in sent:
        hour = f"{one.day}T{one.hour:02}:00:00Z"
        for kind in KINDS:
            if one.model == OPUS:
                token_type = "output_tokens" if kind == "output" else "uncached_input_tokens"
                cents, listed = (100 * price * one.tokens(kind) for price in (one.charged(kind), one.price(kind)))
                analytics.append(
                    AnthropicCost(hour=hour, api_key_id="apikey_a", workspace_id="w", model=one.model,
                                  token_type=token_type, cents=text(cents), list_cents=text(listed))
                )  # fmt: skip
            else:
                sums = amounts[one.day, one.tier, one.model, kind]
                sums[0] += one.charged(kind) * one.tokens(kind)
                sums[1] += one.tokens(kind)
        if one.model == OPUS:
            used.append(
                AnthropicUse(hour=hour, api_key_id="apikey_a", workspace_id="w", model=one.model,
                             uncached_input_tokens=one.input, output_tokens=one.output)
            )  # fmt: skip
        else:
            usage.append(
                OpenAIUse(hour=hour, project_id="p", api_key_id="k", model=f"{one.model}-2026-03-17",
                          service_tier="default" if one.tier == "standard" else one.tier,
                          input_tokens=one.input, output_tokens=one.output)
            )  # fmt: skip
    names = {"input_uncached": "input", "output": "output"}
    costs = []
    for (day, tier, model, kind), (amount, tokens) in amounts.items():
        if short and (day, model, kind) == (SHORT, MINI, "output"):
            tokens = tokens * 9 // 10
            amount = Fraction(BOOK[MINI][1]) / 10**6 * tokens
        route = "" if tier == "standard" else f"{tier} | "
        costs.append(
            OpenAICost(day=day, project_id="p", api_key_id="k", line_item=f"{route}{model}, {names[kind]}",
                       value=text(amount) + "0000", quantity=tokens, quantity_unit="tokens")
        )  # fmt: skip
    openai = OpenAIBill(costs=costs, usage=usage, keys={"p": ["k"]})
    return Bill(openai=openai, anthropic=AnthropicBill(costs=analytics, usage=used))


def telemetry(sent: list[Request]) -> list[tuple[bytes, bytes]]:
    rows: dict[tuple[str, str, str | None], list[Any]] = defaultdict(lambda: [0, 0, Fraction(0)])
    for one in sent:
        if one.lost:
            continue
        hour = one.seen_at or f"{one.day}T{one.hour:02}:00:00Z"
        sums = rows[one.model, hour, one.tier if one.said else None]
        sums[0] += one.input
        sums[1] += one.output
        prices = [Fraction(price) / 10**6 for price in BOOK[one.model]]
        sums[2] += prices[0] * one.input + prices[1] * one.output  # an unreported tier is priced as the standard one
    return [
        row(
            f"c-{model}", hour, model, text(usd), tier=tier, session=str(tier), input_uncached=counts[0],
            output=counts[1], provider="anthropic" if model == OPUS else "openai",
        )
        for (model, hour, tier), (*counts, usd) in rows.items()
    ]  # fmt: skip


def text(value: Fraction) -> str:
    number = Decimal(value.numerator) / Decimal(value.denominator)
    assert Fraction(number) == value
    return exact.plain(number) + ("" if "." in exact.plain(number) else ".0")


def truth(sent: list[Request], model: str) -> dict[str, Fraction]:
    """The expected total of each cause over the month."""
    out: dict[str, Fraction] = defaultdict(Fraction)
    for one in sent:
        for kind in KINDS:
            tokens = one.tokens(kind)
            if one.model != model:
                continue
            if one.lost:
                out["unseen"] += one.charged(kind) * tokens
            elif model == SOL:
                out["book_price"] += (one.charged(kind) - one.price(kind)) * tokens
            elif model == OPUS:
                out["discount"] += (one.charged(kind) - one.price(kind)) * tokens
            elif one.tier == "priority":
                out["tier_unknown"] += one.price(kind) / 2 * tokens
    return dict(out)


async def test_each_cause_is_found_with_its_true_amount(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    sent = list(requests())
    async with bill_rig(kafka, prefix, bill(sent, short=True), book(tmp_path, PRICES), NOW) as one:
        one.config = replace(one.config, backfill=40 * 86_400)  # as `poller --backfill 40` does
        await one.see(telemetry(sent))
        assert (await one.poll()).failures == {}
        before = await one.statements()
        one.sandbox.restate(bill(sent, short=False))
        one.clock.seconds += 7200
        await one.poll()
        statements = await one.statements()
    mine = [said for (_, _, day), said in statements.items() if day in DAYS]
    assert len(mine) == 2 * len(DAYS)
    assert all(said["state"] in ("provisional", "settled") for said in mine)
    found: dict[str, dict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    timing: dict[str, Fraction] = {}
    for said in mine:
        for cell in said["cells"]:
            assert sum(map(Fraction, cell["causes"].values())) == Fraction(cell["difference_usd"])
            for name, value in cell["causes"].items():
                found[cell["model"]][name] += Fraction(value)
        if said["provider"] == "openai":
            timing[said["day"]] = Fraction(said["causes"]["timing"])
    for model in BOOK:
        assert {name: value for name, value in found[model].items() if value} == truth(sent, model)
    # Midnight: each day except the last has a request that telemetry has on the next day; over the month it cancels.
    once = Fraction("0.75") / 10**6 * 50_000 + Fraction("4.5") / 10**6 * 7000
    assert timing[DAYS[0]] == once
    assert timing[DAYS[-1]] == -once
    assert set(timing.values()) == {once, Fraction(0), -once}
    # The restatement: the amount that was missing at first, as lag between usage and costs.
    restated = statements["openai", "all", SHORT]["restated"]
    missing = Fraction(before["openai", "all", SHORT]["bill_usd"]) - Fraction(
        statements["openai", "all", SHORT]["bill_usd"]
    )
    assert Fraction(restated["change_usd"]) == -missing > 0
    assert Fraction(restated["causes"]["lag"]) == -missing
    assert [said["day"] for said in mine if said["restated"]] == [SHORT]
    # In total the parts add up to the difference, and the explanation names them.
    sums = total(mine)
    assert sum(sums.causes.values()) == sums.bill - sums.estimate
    shown = {name: f"{float(value):+.2f}" for name, value in sums.causes.items() if value}
    assert shown == {"unseen": "+28.07", "book_price": "+23.02", "tier_unknown": "+17.15", "discount": "-10.91"}
    assert (f"{float(sums.bill):.2f}", f"{float(sums.estimate):.2f}") == ("590.80", "533.48")  # docs/reconciliation.md
    said_in_words = explain(mine)
    for part in ("no telemetry has", "is a discount", "differ from our price book", "did not report"):
        assert part in said_in_words
