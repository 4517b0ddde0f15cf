"""Converts cost rows and statements of bills to FOCUS rows. Pure.

There is one row per token kind and unit price, so that price times quantity is exactly the cost. `x_CostBasis` is the
kind of cost: `estimate` (our price book), `unpriced` (shown as 0, but not free), `plan-equivalent` (a subscription
pays: only the list cost is not 0) or `reconciled` (a line of the provider's bill). Estimates add up to our tables,
reconciled rows to the bill; both describe the same money and must not be added up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import orjson

from tallystream.agents.cost_query import PLAN
from tallystream.agents.focus.columns import Version, columns, provider_columns
from tallystream.agents.pricing.book import Book
from tallystream.agents.reconciliation import decimals
from tallystream.agents.reconciliation.seen import kind_costs, tier_of
from tallystream.schemas.billing.line_item import STANDARD, undated
from tallystream.schemas.hours import HOUR_NS, hour_from_iso
from tallystream.schemas.money import to_pico
from tallystream.schemas.usage import DISJOINT_COUNTS

Row = dict[str, Any]
"""By column: text, Decimal, datetime or None."""
COMPANIES = {"openai": "OpenAI", "anthropic": "Anthropic", "google": "Google"}
SERVICES = {"openai": "OpenAI API", "anthropic": "Claude API", "google": "Gemini API"}
METERS = {
    "input_uncached": "Input Tokens",
    "cache_read": "Cache Read Input Tokens",
    "cache_write_5m": "Cache Write Input Tokens",
    "cache_write_1h": "Cache Write Input Tokens",
    "cache_write_12h": "Cache Write Input Tokens",
    "output": "Output Tokens",
    "tool": "Input Tokens",
}
PICO_DIGITS = 12
MTOK = 10**6


def estimate_rows(
    document: Mapping[str, Any], book: Book, *, plans: Collection[str] = (), version: Version = "1.4"
) -> Iterator[Row]:
    """Yield the FOCUS rows of one SessionHourCost; `plans` are the connections paid by a subscription; so
    is usage whose attribution says it.
    """
    start = datetime.fromisoformat(document["hour"])
    provider = document["provider"]
    for bucket in document["buckets"]:
        counts = {kind: bucket[kind] for kind in DISJOINT_COUNTS if bucket[kind]}
        tier, cost = bucket.get("service_tier"), bucket.get("cost_usd")
        plan = document["connection_id"] in plans or is_plan(bucket)
        at_ns = hour_from_iso(document["hour"]) * HOUR_NS
        card = book.card(provider, bucket["model"], tier, at_ns, speed=bucket.get("speed"))
        attribution = {name: value for name, value in (bucket.get("attribution") or {}).items() if value is not None}
        head = _head(version, provider, document["connection_id"], start, timedelta(hours=1), plan=plan) | {
            "Tags": _json({name: value for name, value in attribution.items() if name != "user"}),
            "x_SessionId": document["session_id"],
            "x_Client": document.get("client"),
            "x_ConnectionId": document["connection_id"],
            "x_PrincipalId": attribution.get("user"),
            "x_PriceBook": bucket.get("book"),
            "x_TierKnown": "true" if tier_of(tier) is not None else "false",
        }
        basis = "unpriced" if cost is None else "plan-equivalent" if plan else "estimate"
        for window, kind, tokens, pico in kind_costs(counts, None if cost is None else to_pico(cost), card):
            what = _sku(provider, bucket["model"], kind, tier_of(tier) or STANDARD, window)
            for part, price in unit_prices(Fraction(pico or 0, 10**PICO_DIGITS), tokens):
                yield head | what | _money(part, None if pico is None else price, basis)


def is_plan(bucket: Mapping[str, Any]) -> bool:
    """Tell whether a bucket's usage says that a plan pays for it."""
    return (bucket.get("attribution") or {}).get("billing") == PLAN


def bill_rows(statement: Mapping[str, Any], version: Version = "1.4") -> Iterator[Row]:
    """Yield the FOCUS rows of a statement's bill: they add up to exactly its `bill_usd`. A statement without a bill has
    none.
    """
    if statement["bill_usd"] is None:
        return
    start = datetime.fromisoformat(statement["day"]).replace(tzinfo=UTC)
    head = _head(version, statement["provider"], statement["scope"], start, timedelta(days=1)) | {
        "x_AsOf": datetime.fromisoformat(statement["as_of"]) if statement["as_of"] else None,
        "x_TierKnown": "true",
    }
    for cell in statement["cells"]:
        for line in cell["tiers"]:
            if line["amount_usd"] is None or line["tier"] is None:
                continue
            amount, tokens = Fraction(line["amount_usd"]), line["billed_tokens"] or 0
            if tokens <= 0 or cell["model"] is None:
                yield head | _product(cell, line["tier"]) | _lump(amount)
                continue
            listed = None if line["list_amount_usd"] is None else Fraction(line["list_amount_usd"])
            what = _sku(statement["provider"], cell["model"], cell["kind"], line["tier"], cell["window"])
            parts = list(unit_prices(amount, tokens))
            for part, price in parts:
                row = head | what | _money(part, price, "reconciled")
                # A list price applies to a row of the line only if it applies to the whole line.
                if listed is not None and len(parts) == 1 and _ends(listed * MTOK / tokens):
                    row |= _listed(part, listed / tokens)
                yield row


def unit_prices(cost: Fraction, tokens: int) -> Iterator[tuple[int, Fraction]]:
    """Yield (tokens, dollars per token) that add up to the cost exactly, each price a finite decimal: if the cost
    cannot be divided evenly, the tokens are split into two prices that differ by one unit in the last digit.
    """
    digits = max(PICO_DIGITS, decimals.places(cost))
    units = cost * 10**digits
    whole, rest = divmod(int(units), tokens)
    for part, price in ((tokens - rest, whole), (rest, whole + 1)):
        if part:
            yield part, Fraction(price, 10**digits)


def _head(
    version: Version, provider: str, account: str, start: datetime, length: timedelta, *, plan: bool = False
) -> Row:
    month = start.replace(day=1, hour=0)
    company = COMPANIES.get(provider, provider)
    service = SERVICES.get(provider, provider)
    return dict.fromkeys(columns(version)) | dict.fromkeys(provider_columns(version), company) | {
        "BillingAccountId": account,
        "BillingAccountName": account,
        "BillingAccountType": "Organization",
        "BillingCurrency": "USD",
        "BillingPeriodStart": month,
        "BillingPeriodEnd": (month + timedelta(days=32)).replace(day=1),
        "ChargePeriodStart": start,
        "ChargePeriodEnd": start + length,
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": f"{service} (plan)" if plan else service,
        "InvoiceIssuerName": company,
        "PricingCurrency": "USD",
    }  # fmt: skip


def _sku(provider: str, model: str, kind: str, tier: str, window: str) -> Row:
    sku = f"{provider}/{undated(model)}/{kind}"
    return {
        "ChargeDescription": f"{model}, {kind.replace('_', ' ')}, {tier}"
        + (", long context" if window == "long" else ""),
        "SkuId": sku,
        "SkuPriceId": f"{sku}/{tier}/{window}",
        "SkuMeter": METERS.get(kind, "Tokens"),
        "SkuPriceDetails": _json(
            {"x_Model": model, "x_TokenKind": kind, "x_ServiceTier": tier, "x_ContextWindow": window}
        ),
        "x_Model": model,
        "x_TokenKind": kind,
        "x_ServiceTier": tier,
    }


def _money(tokens: int, price: Fraction | None, basis: str) -> Row:
    """Return quantities, prices and costs; without a price the costs are 0 and the price columns are null."""
    consumed: Row = {"ConsumedQuantity": Decimal(tokens), "ConsumedUnit": "Tokens", "x_CostBasis": basis}
    if price is None:
        nothing = dict.fromkeys(("ListCost", "ContractedCost", "EffectiveCost", "BilledCost"), Decimal(0))
        return consumed | nothing | {"SkuPriceId": None, "PricingCurrencyEffectiveCost": Decimal(0)}
    list_price, cost = _decimal(price * MTOK), _decimal(price * tokens)
    paid = basis != "plan-equivalent"
    own_price, own_cost = (list_price, cost) if paid else (Decimal(0), Decimal(0))
    return consumed | {
        "PricingCategory": "Standard",
        "PricingQuantity": _decimal(Fraction(tokens, MTOK)),
        "PricingUnit": "1000000 Tokens",
        "ListUnitPrice": list_price,
        "ContractedUnitPrice": own_price,
        "ListCost": cost,
        "ContractedCost": own_cost,
        "EffectiveCost": own_cost,
        "BilledCost": own_cost,
        "PricingCurrencyListUnitPrice": list_price,
        "PricingCurrencyContractedUnitPrice": own_price,
        "PricingCurrencyEffectiveCost": own_cost,
    }


def _listed(tokens: int, price: Fraction) -> Row:
    shown = _decimal(price * MTOK)
    return {"ListUnitPrice": shown, "PricingCurrencyListUnitPrice": shown, "ListCost": _decimal(price * tokens)}


def _product(cell: Mapping[str, Any], tier: str) -> Row:
    return {
        "ChargeDescription": cell["product"] or f"{cell['model']}, {str(cell['kind']).replace('_', ' ')}",
        "x_Model": cell["model"],
        "x_TokenKind": cell["kind"],
        "x_ServiceTier": tier,
    }


def _lump(amount: Fraction) -> Row:
    """Return the columns of an amount without a quantity of tokens."""
    cost = _decimal(amount)
    costs = dict.fromkeys(("ListCost", "ContractedCost", "EffectiveCost", "BilledCost"), cost)
    return costs | {"PricingCurrencyEffectiveCost": cost, "x_CostBasis": "reconciled"}


def total(rows: Iterable[Row], column: str = "BilledCost") -> Decimal:
    """Return the exact sum of a column of costs."""
    return _decimal(sum((Fraction(row[column]) for row in rows), Fraction(0)))


def _ends(value: Fraction) -> bool:
    try:
        return decimals.places(value) <= PICO_DIGITS
    except ValueError:
        return False


def _decimal(value: Fraction) -> Decimal:
    return Decimal(decimals.text(value))


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
