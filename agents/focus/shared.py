"""Shares the lines of a bill among the usage that telemetry has, so that teams see what was charged and not what was
estimated. Pure.

A line of q billed tokens, of which telemetry has c, is shared by tokens: each row of telemetry gets its part, and what
nobody saw (q - c tokens, if there are any) stays one row without a session. If telemetry has more than was billed, its
rows share the whole line. Parts are whole units of a decimal by largest remainder, so they add up to exactly the line.
Usage without a line on the bill costs 0, because nobody charged for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from tallystream.agents.focus.columns import Version
from tallystream.agents.focus.rows import (
    PICO_DIGITS,
    PayingAccount,
    Row,
    bill_head,
    billed_line,
    product_line,
    usage_head,
)
from tallystream.agents.pricing.book import Book
from tallystream.agents.reconciliation import decimals
from tallystream.agents.reconciliation.seen import kind_costs, tier_of
from tallystream.agents.reconciliation.split import apportion
from tallystream.schemas.billing.line_item import STANDARD, undated
from tallystream.schemas.hours import HOUR_NS, hour_from_iso
from tallystream.schemas.money import to_pico
from tallystream.schemas.usage import DISJOINT_COUNTS

Document = Mapping[str, Any]


class CellName(NamedTuple):
    """A cell of a statement."""

    model: str
    kind: str
    window: str


@dataclass(frozen=True)
class Claim:
    """Tokens of one bucket in a cell."""

    document: Document
    bucket: Mapping[str, Any]
    tokens: int


def shared_rows(
    statement: Mapping[str, Any], documents: Iterable[Document], book: Book, version: Version = "1.4"
) -> Iterator[Row]:
    """Yield the FOCUS rows of a statement's bill, shared among SessionHourCosts of its connections and day: they add up
    to exactly its `bill_usd`. A statement without a bill has none.
    """
    if statement["bill_usd"] is None:
        return
    account = PayingAccount.only(statement["projects"], statement["api_keys"])
    head = bill_head(statement, account, version)
    claims = _claims(documents, book)
    for cell in statement["cells"]:
        name = CellName(cell["model"] or "", cell["kind"] or "", cell["window"] or "")
        by_tier = _placed(cell, claims.pop(name, {}))
        for line in cell["tiers"]:
            if line["amount_usd"] is None or line["tier"] is None:
                continue
            if (line["billed_tokens"] or 0) <= 0 or cell["model"] is None:
                yield head | product_line(cell, line)
                continue
            mine = by_tier.pop(line["tier"], [])
            yield from _line(statement, account, head, cell, line, mine, version)
        for tier, mine in sorted(by_tier.items()):
            yield from _free(statement, account, name, tier, mine, version)
    for name, tiers in sorted(claims.items()):
        for said, mine in sorted(tiers.items(), key=lambda item: item[0] or ""):
            yield from _free(statement, account, name, said or STANDARD, mine, version)


def _claims(documents: Iterable[Document], book: Book) -> dict[CellName, dict[str | None, list[Claim]]]:
    """Return telemetry by cell and tier, with the reconciliation's distinctions."""
    found: dict[CellName, dict[str | None, list[Claim]]] = {}
    for document in documents:
        at_ns = hour_from_iso(document["hour"]) * HOUR_NS
        for bucket in document["buckets"]:
            tier, cost = bucket.get("service_tier"), bucket.get("cost_usd")
            card = book.card(document["provider"], bucket["model"], tier, at_ns, speed=bucket.get("speed"))
            counts = {kind: bucket[kind] for kind in DISJOINT_COUNTS if bucket[kind]}
            for window, kind, tokens, _ in kind_costs(counts, None if cost is None else to_pico(cost), card):
                tiers = found.setdefault(CellName(undated(bucket["model"]), kind, window), {})
                tiers.setdefault(tier_of(tier), []).append(Claim(document, bucket, tokens))
    return found


def _placed(cell: Mapping[str, Any], by_tier: Mapping[str | None, list[Claim]]) -> dict[str, list[Claim]]:
    """Assign tokens of unknown tier to tiers in the proportions of the statement."""
    found = {tier: list(claims) for tier, claims in by_tier.items() if tier is not None}
    weights = {line["tier"]: line["placed_tokens"] for line in cell["tiers"] if line["placed_tokens"]}
    for claim in by_tier.get(None, ()):
        parts = apportion(claim.tokens, weights) if weights else {STANDARD: claim.tokens}
        for tier, tokens in parts.items():
            if tokens:
                found.setdefault(tier, []).append(Claim(claim.document, claim.bucket, tokens))
    return found


def _line(
    statement: Mapping[str, Any], account: PayingAccount, head: Row, cell: Mapping[str, Any], line: Mapping[str, Any],
    claims: list[Claim], version: Version,
) -> Iterator[Row]:  # fmt: skip
    """Share one line of the bill."""
    unseen = max(0, line["billed_tokens"] - sum(claim.tokens for claim in claims))
    tokens = [claim.tokens for claim in claims] + ([unseen] if unseen else [])
    amounts = parts_of(Fraction(line["amount_usd"]), tokens)
    listed = None if line["list_amount_usd"] is None else Fraction(line["list_amount_usd"]) / sum(tokens)
    for number, (count, amount) in enumerate(zip(tokens, amounts, strict=True)):
        if number < len(claims):
            claim = claims[number]
            own = usage_head(claim.document, claim.bucket, statement, account, version)
            model = claim.bucket["model"]
        else:
            own, model = head, cell["model"]
        yield from billed_line(own, statement["provider"], model, cell, line["tier"], count, amount, listed)


def _free(
    statement: Mapping[str, Any], account: PayingAccount, name: CellName, tier: str, claims: list[Claim],
    version: Version,
) -> Iterator[Row]:  # fmt: skip
    """Yield usage that is not on any line of the bill."""
    for claim in claims:
        own = usage_head(claim.document, claim.bucket, statement, account, version)
        cell, model = name._asdict(), claim.bucket["model"]
        yield from billed_line(own, statement["provider"], model, cell, tier, claim.tokens, Fraction(0), None)


def parts_of(amount: Fraction, weights: list[int]) -> list[Fraction]:
    """Return an amount in parts by weight, each a finite decimal, that add up to exactly the amount."""
    digits = max(PICO_DIGITS, decimals.places(amount))
    whole = amount * 10**digits
    units = apportion(abs(int(whole)), {f"{number:09}": weight for number, weight in enumerate(weights)})
    sign = -1 if whole < 0 else 1
    return [Fraction(sign * count, 10**digits) for _, count in sorted(units.items())]
