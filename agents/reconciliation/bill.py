"""What a provider says of one UTC day, in one shape for all providers: lines of the bill and tokens by hour."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from tallystream.schemas.billing.line_item import SHORT

HOURS = 24


class LineKey(NamedTuple):
    """What lines are added up by. Either (model, kind) or `product` is set."""

    tier: str
    model: str | None = None
    """Without its date."""
    kind: str | None = None
    window: str = SHORT
    product: str | None = None


class Account(NamedTuple):
    """Whose line it is, as far as the query says."""

    project_id: str | None = None
    api_key_id: str | None = None


@dataclass
class Line:
    """An amount in dollars. `quantity` is None where the provider gives none."""

    amount: Fraction
    ulp: Fraction = Fraction(0)
    quantity: int | None = None
    list_amount: Fraction | None = None
    written: str = ""
    """The model or product as the provider writes it."""

    def plus(self, other: Line, sign: int = 1) -> Line:
        """Return both lines as one; `sign` -1 takes the other away."""
        quantity = None
        if self.quantity is not None and other.quantity is not None:
            quantity = self.quantity + sign * other.quantity
        listed = None
        if self.list_amount is not None and other.list_amount is not None:
            listed = self.list_amount + sign * other.list_amount
        return Line(
            self.amount + sign * other.amount, max(self.ulp, other.ulp), quantity, listed, self.written or other.written
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
    """What is known of a provider's day."""

    as_of: datetime
    """When the bill was polled."""
    lines: Lines = field(default_factory=list)
    by_key: Lines | None = None
    """The same dollars by key, where that is a query of its own; never added to `lines`."""
    usage: list[BillUsage] = field(default_factory=list)
    usage_known: bool = False
    """Whether `usage` is the whole day, so that it can be held against the bill."""
    hourly: bool = False
    """Whether it is the whole day by hour."""
    currencies: dict[str, Fraction] = field(default_factory=dict)
    """Amounts that are not US dollars: shown apart, never added."""
    watermark: datetime | None = None
    """Up to when the provider itself calls its data complete."""
    problems: list[str] = field(default_factory=list)
    """Why the day cannot be split."""
