"""Converts OpenAI's records of a day to a DayBill. Pure.

Costs come by project and line item and, in a second query that is never added to the first, by key and line item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction

from tallystream.agents.reconciliation.bill import HOURS, Account, BillUsage, DayBill, Line, LineKey, Lines
from tallystream.schemas.billing.amounts import read_amount
from tallystream.schemas.billing.line_item import STANDARD, parse_line_item, undated
from tallystream.schemas.openai import OpenAIRecord

COSTS, COSTS_BY_KEY = "/organization/costs", "costs by key"
HOURLY, DAILY = "completions by hour", "/organization/usage/completions"
RESOURCES = frozenset({COSTS, COSTS_BY_KEY, HOURLY, DAILY})
UNITS = {"tokens": 1, "1000_tokens": 1000}
DOLLARS = "USD"


def read_day(records: Mapping[str, list[OpenAIRecord]]) -> DayBill | None:
    """Return the bill from the newest records of a day, by resource; None without a cost report."""
    if not (costs := records.get(COSTS)):
        return None
    out = DayBill(as_of=max(record.polled_at for record in costs))
    for record in costs:
        out.lines += _lines(record, out)
    if by_key := records.get(COSTS_BY_KEY):
        apart = DayBill(out.as_of)
        out.by_key = [line for record in by_key for line in _lines(record, apart)]
        out.problems += apart.problems
    hours, days = records.get(HOURLY, []), records.get(DAILY, [])
    out.hourly = len(hours) == HOURS
    out.usage_known = out.hourly or bool(days)
    used = hours if out.hourly or not days else days
    out.usage = [one for record in used for one in _usage(record, by_hour=used is hours)]
    return out


def _lines(record: OpenAIRecord, out: DayBill) -> Lines:
    lines: Lines = []
    for row in record.exact_rows():
        text = row.get("line_item")
        try:
            money = row["amount"]
            amount = read_amount(money["value"])
            currency = str(money.get("currency") or "usd").upper()
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            why = exc if isinstance(exc, ValueError) else "the row has no amount"
            out.problems.append(f"{record.resource}: {str(text)[:80]!r}: {why}")
            continue
        if currency != DOLLARS:
            out.currencies[currency] = out.currencies.get(currency, Fraction(0)) + amount.value
            continue
        key, quantity, written = _key(row, text if isinstance(text, str) else "")
        account = Account(_text(row.get("project_id")), _text(row.get("api_key_id")))
        lines.append((account, key, Line(amount.value, amount.ulp, quantity, written=frozenset({written}))))
    return lines


def _key(row: Mapping[str, object], text: str) -> tuple[LineKey, int | None, str]:
    item = parse_line_item(text)
    tier = item.tier or item.route or STANDARD
    if item.kind is None or item.name is None:
        return LineKey(tier, product=item.text or "(no line item)"), 0, item.text
    kind = item.kind if item.modality is None else f"{item.modality}_{item.kind}"
    return LineKey(tier, item.name, kind, item.window), _quantity(row), item.model or ""


def _quantity(row: Mapping[str, object]) -> int | None:
    """Return whole tokens; None when the quantity is missing or not a whole number."""
    unit = UNITS.get(str(row.get("quantity_unit")))
    raw = row.get("quantity")
    if raw is None or unit is None:
        return None
    try:
        tokens = read_amount(raw).value * unit
    except ValueError:
        return None
    return int(tokens) if tokens.denominator == 1 and tokens >= 0 else None


def _usage(record: OpenAIRecord, *, by_hour: bool) -> Iterable[BillUsage]:
    hour = record.starts_at.hour if by_hour and record.starts_at else None
    for row in record.exact_rows():
        model = _text(row.get("model"))
        if model is None:
            continue
        account = Account(_text(row.get("project_id")), _text(row.get("api_key_id")))
        for kind, tokens in token_kinds(row).items():
            if tokens:
                yield BillUsage(account, undated(model), kind, _tier(row), hour, tokens)


def token_kinds(row: Mapping[str, object]) -> dict[str, int]:
    """Return the disjoint token counts of a completions row.

    `input_tokens` includes reads and writes. Writes are computed as the rest, neither read nor uncached, because the
    meaning of the field for writes has changed several times.
    """
    whole, cached = _count(row, "input_tokens"), _count(row, "input_cached_tokens")
    uncached = row.get("input_uncached_tokens")
    if type(uncached) is int:
        writes = max(0, whole - cached - uncached)
    else:
        writes = _count(row, "input_cache_write_tokens")
        uncached = max(0, whole - cached - writes)
    long_writes = min(writes, _count(row, "input_cache_write_12h_tokens"))
    return {
        "input_uncached": uncached,
        "cache_read": cached,
        "cache_write_5m": writes - long_writes,
        "cache_write_12h": long_writes,
        "output": _count(row, "output_tokens"),
    }


def _tier(row: Mapping[str, object]) -> str | None:
    if row.get("batch") is True:
        return "batch"
    tier = _text(row.get("service_tier"))
    return STANDARD if tier in ("default", "standard") else tier


def _count(row: Mapping[str, object], name: str) -> int:
    value = row.get(name)
    if isinstance(value, Decimal):
        value = int(value)
    return value if type(value) is int and value > 0 else 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
