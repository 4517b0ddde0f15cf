"""A provider's bill of one UTC day, in one format for all providers: lines of the bill and tokens by hour."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from tallystream.schemas.billing.line_item import SHORT

HOURS = 24


class LineKey(NamedTuple):
    """The key by which lines are added up. Either (model, kind) or `product` is set."""

    tier: str
    model: str | None = None
    """Without its date."""
    kind: str | None = None
    window: str = SHORT
    product: str | None = None


class Account(NamedTuple):
    """The account of a line, as far as the query reports it."""

    project_id: str | None = None
    api_key_id: str | None = None


@dataclass
class Line:
    """An amount in dollars. `quantity` is None if the provider does not report it."""

    amount: Fraction
    ulp: Fraction = Fraction(0)
    """How far the amount may be off because the provider rounds what it transmits: of a sum, that of all its parts."""
    quantity: int | None = None
    list_amount: Fraction | None = None
    written: frozenset[str] = frozenset()
    """The model or product as the provider writes it, with dates; several where snapshots are added up."""

    def plus(self, other: Line, sign: int = 1) -> Line:
        """Return both lines as one; `sign` -1 takes the other away."""
        quantity = None
        if self.quantity is not None and other.quantity is not None:
            quantity = self.quantity + sign * other.quantity
        listed = None
        if self.list_amount is not None and other.list_amount is not None:
            listed = self.list_amount + sign * other.list_amount
        return Line(
            self.amount + sign * other.amount, self.ulp + other.ulp, quantity, listed, self.written | other.written
        )


class BillUsage(NamedTuple):
    """Tokens of the provider's usage report. `hour` is 0 to 23, None when the report is by day."""

    account: Account
    model: str
    kind: str
    tier: str | None
    hour: int | None
    tokens: int


Lines = list[tuple[Account, LineKey, Line]]


@dataclass
class DayBill:
    """The known data of a provider's day."""

    as_of: datetime
    """When the bill was polled."""
    lines: Lines = field(default_factory=list)
    by_key: Lines | None = None
    """The same dollars by key, if from a separate query; never added to `lines`."""
    usage: list[BillUsage] = field(default_factory=list)
    usage_known: bool = False
    """Whether `usage` covers the whole day, so that it can be compared with the bill."""
    hourly: bool = False
    """Whether it is the whole day by hour."""
    currencies: dict[str, Fraction] = field(default_factory=dict)
    """Amounts in other currencies, which are shown separately and never added."""
    watermark: datetime | None = None
    """Time up to which the provider itself reports its data as complete."""
    problems: list[str] = field(default_factory=list)
    """Reasons why the day cannot be split."""
