"""Adds up statements for a table, and explains them in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tallystream.agents.reconciliation.decimals import text
from tallystream.agents.reconciliation.split import CAUSES

Statement = Mapping[str, Any]
ZERO = Fraction(0)
WORDS = {
    "unseen": (
        "was billed for tokens that no telemetry has",
        "look for tools and machines that use these accounts without sending telemetry",
    ),
    "overseen": (
        "was seen by telemetry but is not on this bill",
        "map a subscription's connections as a plan, and check that each account is mapped to the right connection",
    ),
    "timing": (
        "is usage around midnight that the provider counts on the neighbouring day",
        "nothing: it cancels over both days",
    ),
    "lag": ("is a difference between the provider's own usage and cost reports", "wait for the next poll"),
    "discount": ("is a discount", "put the contract's prices into TALLYSTREAM_PRICES, and the estimate will have it"),
    "book_price": (
        "comes from prices that differ from our price book",
        "`tallystream prices check` names the models, and prints what to put into TALLYSTREAM_PRICES",
    ),
    "free": ("is usage that was billed at a price of 0", "nothing: a free allowance"),
    "unpriced": (
        "is for models our price book does not know",
        "add their prices to TALLYSTREAM_PRICES, or upgrade tallystream",
    ),
    "tier_unknown": (
        "is the difference between service tiers, for requests whose tier the client did not report",
        "nothing is wrong: let clients report the service tier to have it in the estimate",
    ),
    "kind_moved": (
        "is tokens that client and provider count as different kinds, such as cache writes of 5 minutes and of 1 hour",
        "upgrade the client: newer versions distinguish them",
    ),
    "no_token_line": (
        "is for products that are not billed by token, such as web searches and storage",
        "nothing: they are not in telemetry",
    ),
    "rounding": ("is below the last digit that the provider transmits", "nothing"),
}
"""By cause: a description of its part of the difference, and what to do about it."""


@dataclass
class ReportTotals:
    """Sums of statements. Those without a split are counted and left out of the sums."""

    bill: Fraction = ZERO
    estimate: Fraction = ZERO
    causes: dict[str, Fraction] = field(default_factory=lambda: dict.fromkeys(CAUSES, ZERO))
    seen: int = 0
    billed: int = 0
    states: dict[str, int] = field(default_factory=dict)
    as_of: str = ""
    left_out: Fraction = ZERO
    """Estimates of statements without a split."""

    def add(self, one: Statement) -> None:
        """Add a cell (of a statement with a split)."""
        self.bill += Fraction(one["bill_usd"])
        self.estimate += Fraction(one["estimate_usd"])
        for name in CAUSES:
            self.causes[name] += Fraction(one["causes"][name])

    def document(self) -> dict[str, Any]:
        """Return the sums for programs: exact decimal strings."""
        return {
            "bill_usd": text(self.bill),
            "estimate_usd": text(self.estimate),
            "difference_usd": text(self.bill - self.estimate),
            "causes": {name: text(value) for name, value in self.causes.items()},
            "seen_tokens": self.seen,
            "billed_tokens": self.billed,
            "states": dict(sorted(self.states.items())),
            "as_of": self.as_of or None,
            "without_bill_usd": text(self.left_out),
        }


def total(statements: Iterable[Statement]) -> ReportTotals:
    """Return the sums of statements."""
    out = ReportTotals()
    for one in statements:
        out.states[one["state"]] = out.states.get(one["state"], 0) + 1
        out.as_of = max(out.as_of, one["as_of"] or "")
        if one["causes"] is None:
            if one["state"] == "partial":
                out.left_out += Fraction(one["estimate_usd"])
            continue
        out.add(one)
        out.seen += one["seen_tokens"]
        out.billed += one["billed_tokens"] or 0
    return out


def by_model(statements: Iterable[Statement]) -> dict[tuple[str, str], ReportTotals]:
    """Return the sums by provider and model; products are under their own text."""
    out: dict[tuple[str, str], ReportTotals] = {}
    for one in statements:
        for cell in one["cells"]:
            sums = out.setdefault((one["provider"], cell["model"] or cell["product"]), ReportTotals())
            sums.add(cell)
            sums.states[one["state"]] = sums.states.get(one["state"], 0) + 1
            sums.as_of = max(sums.as_of, one["as_of"] or "")
            for tier in cell["tiers"]:
                sums.seen += tier["seen_tokens"]
                sums.billed += tier["billed_tokens"] or 0
    return out


def explain(statements: Sequence[Statement]) -> str:
    """Explain the difference in sentences: its size, its causes, and what to do."""
    sums = total(statements)
    if not sums.bill and not sums.estimate and not sums.left_out:
        return "Nothing was billed and nothing was seen."
    lines = [headline(statements, sums)]
    ranked = sorted(((abs(value), name) for name, value in sums.causes.items() if value), reverse=True)
    if len(ranked) > 1:
        lines.append(f"The difference has {len(ranked)} parts, which add up to it exactly:")
    for _, name in ranked:
        what, to_do = WORDS[name]
        value = sums.causes[name]
        lines.append(f"- {'+' if value > 0 else '-'}{dollars(abs(value))} {what}. To do: {to_do}.")
        lines += _largest(statements, name)
    lines += notes(statements, sums)
    return "\n".join(lines)


def headline(statements: Sequence[Statement], sums: ReportTotals) -> str:
    """Return the sentence that says how far bill and estimate are apart; there must be a statement."""
    difference = sums.bill - sums.estimate
    days = sorted({one["day"] for one in statements})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    more = "more" if difference > 0 else "less"
    return (
        f"{when}: the providers billed {dollars(sums.bill)}, our estimate is {dollars(sums.estimate)}: the bill is "
        + (f"{dollars(abs(difference))} {more}{_share(difference, sums.estimate)}." if difference else "the same.")
    )


def _largest(statements: Iterable[Statement], cause: str) -> list[str]:
    """Return the models or products most of a cause comes from."""
    if cause in ("rounding", "timing"):
        return []
    found: dict[str, Fraction] = {}
    for one in statements:
        for cell in one["cells"]:
            if value := Fraction(cell["causes"][cause]):
                what = cell["product"] or f"{cell['model']} {str(cell['kind']).replace('_', ' ')}"
                found[what] = found.get(what, ZERO) + value
    ranked = sorted(found.items(), key=lambda item: (-abs(item[1]), item[0]))[:3]
    return [f"    {dollars_signed(value)} {what}" for what, value in ranked if value]


def notes(statements: Iterable[Statement], sums: ReportTotals) -> list[str]:
    """Return further sentences: ratios, what has no split, what may change, restatements, plans, other currencies."""
    out = []
    for provider in sorted({one["provider"] for one in statements}):
        split = [one for one in statements if one["provider"] == provider and one["causes"] is not None]
        if len(ratios := {one["discount_ratio"] for one in split}) == 1 and (ratio := ratios.pop()):
            off = round((1 - Decimal(ratio)) * 100, 4).normalize()
            out.append(f"{provider} charges every line at one ratio to the price book: {off:f}% off.")
    if waiting := {one["reason"] for one in statements if one["state"] == "partial"}:
        out.append(
            f"{_statements(sums.states['partial'], 'has', 'have')} no split, with {dollars(sums.left_out)} of"
            f" estimates: {'; '.join(sorted(waiting))[:300]}."
        )
    if moving := sums.states.get("open", 0) + sums.states.get("provisional", 0):
        as_of = f" As of {sums.as_of[:19]}Z." if sums.as_of else ""
        out.append(f"{_statements(moving, 'may', 'may')} still change.{as_of}")
    for one in statements:
        if one["restated"] is not None:
            out.append(
                f"{one['provider']} restated {one['day']} by {dollars_signed(Fraction(one['restated']['change_usd']))}"
                f" after {one['restated']['from_as_of']}."
            )
        if one["scope"] == "plan":
            out.append(
                f"{one['day']}: a plan paid for usage that would have cost {dollars(Fraction(one['estimate_usd']))}"
                " by the API; it is not in these sums."
            )
        for currency, amount in one["other_currencies"].items():
            out.append(
                f"{one['provider']} also billed {amount} {currency} on {one['day']}, which is not in these sums."
            )
    return out


def _statements(count: int, one: str, several: str) -> str:
    return f"1 statement {one}" if count == 1 else f"{count} statements {several}"


def _share(difference: Fraction, estimate: Fraction) -> str:
    return f" ({float(100 * difference / estimate):+.1f}%)" if estimate else ""


def dollars(value: Fraction) -> str:
    """Return dollars for people: cents, and more digits below one cent, at least two of which are not 0."""
    if 0 < abs(value) < Fraction(1, 10**6):
        return f"${Decimal(f'{float(value):.1e}'):f}"
    if 0 < abs(value) < Fraction(1, 100):
        return f"${float(value):.6f}".rstrip("0")
    return f"${float(round(value, 2)):,.2f}"


def dollars_signed(value: Fraction) -> str:
    """Return dollars with their sign."""
    return ("+" if value >= 0 else "-") + dollars(abs(value))
