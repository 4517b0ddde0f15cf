"""Converts cost rows and statements of bills to FOCUS rows. Pure.

There is one row per token kind and unit price, so that price times quantity is exactly the cost. `x_CostBasis` is the
kind of cost: `estimate` (our price book), `unpriced` (shown as 0, but not free), `plan-equivalent` (a subscription
pays: only the list cost is not 0) or `reconciled` (a line of the provider's bill, or a part of one). Estimates add up
to our tables, reconciled rows to the bill; both describe the same money and must not be added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import orjson

from tallystream.agents.cost_table import PLAN
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
SUB_ACCOUNTS = {"openai": "Project", "anthropic": "Workspace"}
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


@dataclass(frozen=True)
class PayingAccount:
    """The provider's account that pays for rows, as far as the operator's map says it."""

    plan: bool = False
    """Whether a subscription pays."""
    project_id: str | None = None
    """OpenAI's project or Anthropic's workspace."""
    api_key_id: str | None = None
    """The key's id, which is not a secret."""

    @classmethod
    def only(cls, projects: Sequence[str], api_keys: Sequence[str], *, plan: bool = False) -> PayingAccount:
        """Return the account if there is only one, else one without names, because it is unknown which one pays."""
        if len(projects) + len(api_keys) != 1:
            return cls(plan)
        return cls(plan, next(iter(projects), None), next(iter(api_keys), None))

    def columns(self, provider: str) -> Row:
        """Return the columns that name it."""
        kind = SUB_ACCOUNTS.get(provider) if self.project_id is not None else None
        named = {"SubAccountId": self.project_id, "SubAccountName": self.project_id, "SubAccountType": kind}
        return named | {"x_CredentialId": self.api_key_id}


UNKNOWN = PayingAccount()


def estimate_rows(
    document: Mapping[str, Any], book: Book, account: PayingAccount = UNKNOWN, version: Version = "1.4"
) -> Iterator[Row]:
    """Yield the FOCUS rows of one SessionHourCost, which `account` pays for. Usage that itself says that a plan pays
    for it is a plan's.
    """
    provider = document["provider"]
    for bucket in document["buckets"]:
        counts = {kind: bucket[kind] for kind in DISJOINT_COUNTS if bucket[kind]}
        tier, cost = bucket.get("service_tier"), bucket.get("cost_usd")
        at_ns = hour_from_iso(document["hour"]) * HOUR_NS
        card = book.card(provider, bucket["model"], tier, at_ns, speed=bucket.get("speed"))
        plan = account.plan or is_plan(bucket)
        paying = replace(account, plan=plan)
        head = _usage(version, document, bucket, document["connection_id"], paying)
        head["x_PriceBook"] = bucket.get("book")
        basis = "unpriced" if cost is None else "plan-equivalent" if plan else "estimate"
        for window, kind, tokens, pico in kind_costs(counts, None if cost is None else to_pico(cost), card):
            what = _sku(provider, bucket["model"], kind, tier_of(tier) or STANDARD, window)
            for part, price in unit_prices(Fraction(pico or 0, 10**PICO_DIGITS), tokens):
                yield head | what | _money(part, None if pico is None else price, basis)


def is_plan(bucket: Mapping[str, Any]) -> bool:
    """Tell whether a bucket's usage says that a plan pays for it."""
    return (bucket.get("attribution") or {}).get("billing") == PLAN


def usage_head(
    document: Mapping[str, Any], bucket: Mapping[str, Any], statement: Mapping[str, Any], account: PayingAccount,
    version: Version,
) -> Row:  # fmt: skip
    """Return the columns of a bucket's usage that a bill is shared with."""
    return _usage(version, document, bucket, statement["scope"], account) | _as_of(statement)


def bill_head(statement: Mapping[str, Any], account: PayingAccount, version: Version) -> Row:
    """Return the columns of a bill's lines without known usage."""
    start = datetime.fromisoformat(statement["day"]).replace(tzinfo=UTC)
    head = _head(version, statement["provider"], statement["scope"], start, timedelta(days=1), account)
    return head | _as_of(statement) | {"x_TierKnown": "true"}


def billed_line(
    head: Row, provider: str, model: str, cell: Mapping[str, Any], tier: str, tokens: int, amount: Fraction,
    list_price: Fraction | None,
) -> Iterator[Row]:  # fmt: skip
    """Yield the rows of a line of tokens, or of a part of one. `list_price` is dollars per token before discounts; one
    that is not a finite decimal is left out, because the columns could not hold it.
    """
    what = _sku(provider, model, cell["kind"], tier, cell["window"])
    for part, price in unit_prices(amount, tokens):
        row = head | what | _money(part, price, "reconciled")
        if list_price is not None and _ends(list_price * MTOK):
            row |= _listed(part, list_price)
        yield row


def product_line(cell: Mapping[str, Any], line: Mapping[str, Any]) -> Row:
    """Return the columns of an amount that is not for a quantity of tokens."""
    return _product(cell, line["tier"]) | _lump(Fraction(line["amount_usd"]))


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


def _usage(
    version: Version, document: Mapping[str, Any], bucket: Mapping[str, Any], name: str, account: PayingAccount
) -> Row:
    """Return the columns of a bucket: whose usage it is, of which hour."""
    start, tier = datetime.fromisoformat(document["hour"]), bucket.get("service_tier")
    attribution = {key: value for key, value in (bucket.get("attribution") or {}).items() if value is not None}
    return _head(version, document["provider"], name, start, timedelta(hours=1), account) | {
        "Tags": _json({key: value for key, value in attribution.items() if key != "user"}),
        "x_SessionId": document["session_id"],
        "x_Client": document.get("client"),
        "x_ConnectionId": document["connection_id"],
        "x_PrincipalId": attribution.get("user"),
        "x_TierKnown": "true" if tier_of(tier) is not None else "false",
    }


def _as_of(statement: Mapping[str, Any]) -> Row:
    return {"x_AsOf": datetime.fromisoformat(statement["as_of"]) if statement["as_of"] else None}


def _head(
    version: Version, provider: str, name: str, start: datetime, length: timedelta, account: PayingAccount
) -> Row:
    month = start.replace(day=1, hour=0)
    company = COMPANIES.get(provider, provider)
    service = SERVICES.get(provider, provider)
    return dict.fromkeys(columns(version)) | dict.fromkeys(provider_columns(version), company) | {
        "BillingAccountId": name,
        "BillingAccountName": name,
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
        "ServiceName": f"{service} (plan)" if account.plan else service,
        "InvoiceIssuerName": company,
        "PricingCurrency": "USD",
    } | account.columns(provider)  # fmt: skip


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
        # A price that does not exist has neither an id nor details; x_Model and x_TokenKind still say what it is.
        without = {"SkuPriceId": None, "SkuPriceDetails": None, "PricingCurrencyEffectiveCost": Decimal(0)}
        return consumed | nothing | without
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
