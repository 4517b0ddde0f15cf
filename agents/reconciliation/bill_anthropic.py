"""Converts Anthropic's records of a day to a DayBill. Pure.

The analytics cost and usage reports are joined on key, workspace, model, tier and context window. The legacy reports
replace them for a day without analytics: their costs are only by workspace. Amounts are cents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from tallystream.agents.reconciliation.bill import Account, BillUsage, DayBill, Line, LineKey
from tallystream.schemas.billing.amounts import Amount, read_amount
from tallystream.schemas.billing.line_item import LONG, SHORT, STANDARD, undated
from tallystream.schemas.openai import OpenAIRecord

COST, USAGE, WATERMARK = "anthropic cost", "anthropic usage", "anthropic watermark"
LEGACY_COST, LEGACY_USAGE = "anthropic cost report", "anthropic usage report"
RESOURCES = frozenset({COST, USAGE, WATERMARK, LEGACY_COST, LEGACY_USAGE})
KINDS = {
    "uncached_input_tokens": "input_uncached",
    "cache_read_input_tokens": "cache_read",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write_5m",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write_1h",
    "output_tokens": "output",
}
LONG_WINDOW = "200k-1M"
Group = Mapping[str, Any]
TokenKey = tuple[Account, LineKey]


def read_day(records: Mapping[str, list[OpenAIRecord]], watermark: datetime | None) -> DayBill | None:
    """Return the bill from the newest records of a day, by resource; None without a cost report."""
    analytics = bool(records.get(COST))
    costs = records.get(COST) or records.get(LEGACY_COST)
    if not costs:
        return None
    usage = records.get(USAGE if analytics else LEGACY_USAGE, [])
    out = DayBill(as_of=max(record.polled_at for record in costs), watermark=watermark if analytics else None)
    if not usage:
        out.problems.append(f"{USAGE if analytics else LEGACY_USAGE}: the tokens of this day have not been polled")
    quantities: dict[TokenKey, int] = {}
    for record in usage:
        for account, key, hour, tokens in _tokens(record):
            where = account if analytics else Account(account.project_id)
            quantities[where, key] = quantities.get((where, key), 0) + tokens
            out.usage.append(BillUsage(account, key.model or "", key.kind or "", key.tier, hour, tokens))
    # The bill's own quantities are these counts, so there is nothing to compare; only the hours around midnight are
    # used.
    out.hourly = bool(usage) and all(one.hour is not None for one in out.usage)
    lines: dict[TokenKey, Line] = {}
    for record in costs:
        for account, key, line in _costs(record, out):
            have = lines.get((account, key))
            lines[account, key] = line if have is None else have.plus(line)
    for (account, key), line in lines.items():
        line.quantity = quantities.get((account, key), 0) if key.kind else 0
        out.lines.append((account, key, line))
    if not analytics:
        _share_by_key(out)
    return out


def _costs(record: OpenAIRecord, out: DayBill) -> Iterable[tuple[Account, LineKey, Line]]:
    for row in record.exact_rows():
        group: Group = row.get("group", row)
        money = row.get("cost", row)
        try:
            amount = _cents(money["amount"])
            listed = _cents(money["list_amount"]).value if "list_amount" in money else None
        except (KeyError, TypeError, ValueError) as exc:
            why = exc if isinstance(exc, ValueError) else "the row has no amount"
            out.problems.append(f"{record.resource}: {group.get('model')}: {why}")
            continue
        if (currency := str(money.get("currency") or "USD").upper()) != "USD":
            out.currencies[currency] = out.currencies.get(currency, Fraction(0)) + amount.value
            continue
        kind = KINDS.get(str(group.get("token_type")))
        model = group.get("model")
        tier = str(group.get("service_tier") or STANDARD)
        if kind is None or not model:
            product = str(group.get("cost_type") or group.get("description") or "(no cost type)")
            key, written = LineKey(tier, product=product), product
        else:
            key, written = LineKey(tier, undated(str(model)), kind, _window(group)), str(model)
        yield _account(group), key, Line(amount.value, amount.ulp, 0, listed, frozenset({written}))


def _tokens(record: OpenAIRecord) -> Iterable[tuple[Account, LineKey, int | None, int]]:
    for row in record.exact_rows():
        group: Group = row.get("group", row)
        used = row.get("usage", row)
        model = group.get("model")
        if not model:
            continue
        for name, kind in KINDS.items():
            head, _, tail = name.partition(".")
            value = (used.get(head) or {}).get(tail) if tail else used.get(head)
            if type(value) is int and value > 0:
                key = LineKey(str(group.get("service_tier") or STANDARD), undated(str(model)), kind, _window(group))
                yield _account(group), key, _hour(row, record), value


def _share_by_key(out: DayBill) -> None:
    """Share a workspace's costs among its keys by their tokens, because the legacy report lacks costs by key."""
    tokens: dict[tuple[str | None, str, str, str | None], dict[str, int]] = {}
    for one in out.usage:
        keys = tokens.setdefault((one.account.project_id, one.model, one.kind, one.tier), {})
        name = one.account.api_key_id or ""
        keys[name] = keys.get(name, 0) + one.tokens
    shared = []
    for account, key, line in out.lines:
        keys = tokens.get((account.project_id, key.model or "", key.kind or "", key.tier), {})
        whole = sum(keys.values())
        if not line.quantity or whole != line.quantity:
            shared.append((account, key, line))
            continue
        for name, count in sorted(keys.items()):
            part = Line(line.amount * count / whole, line.ulp, count, None, line.written)
            shared.append((Account(account.project_id, name or None), key, part))
    out.lines = shared


def _hour(row: Mapping[str, object], record: OpenAIRecord) -> int | None:
    text = row.get("starting_at")
    if isinstance(text, str):
        try:
            return datetime.fromisoformat(text).astimezone(UTC).hour
        except ValueError:
            return None
    whole_day = record.starts_at is None or (
        record.ends_at is not None and record.ends_at.hour == record.starts_at.hour
    )
    return None if whole_day or record.starts_at is None else record.starts_at.hour


def _account(group: Group) -> Account:
    return Account(group.get("workspace_id") or None, group.get("api_key_id") or None)


def _window(group: Group) -> str:
    return LONG if group.get("context_window") == LONG_WINDOW else SHORT


def _cents(raw: object) -> Amount:
    amount = read_amount(raw)
    return Amount(amount.value / 100, amount.ulp / 100)
