"""Topic `reconciliation.days`: why a provider's bill of a UTC day and our estimate differ, by cause.

Each message is a complete statement about one day of one account scope, so its parts are always consistent. In every
statement and every cell, the causes add up to exactly the difference.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from tallystream.schemas import keys
from tallystream.schemas.billing.accounts import BilledBy
from tallystream.schemas.openai import Day
from tallystream.schemas.rows import Usd
from tallystream.schemas.usage import Count
from tallystream.schemas.versions import Version

State = Literal["open", "provisional", "settled", "partial"]


class Causes(BaseModel):
    """Dollars by cause; together they are the difference, to the last digit."""

    model_config = ConfigDict(extra="forbid")

    unseen: Usd
    """Billed but never seen by telemetry: other tools, other machines, lost telemetry."""
    overseen: Usd
    """Seen by telemetry but not billed here: a plan's sessions, an account that is not mapped, blocked requests."""
    timing: Usd
    """Billed on one day and seen on the day before or after; cancels out over both."""
    lag: Usd
    """The provider's own usage and cost reports do not agree yet."""
    discount: Usd
    """Charged less than the list price."""
    book_price: Usd
    """The price book differs from the price charged, or from the list price if the provider reports it."""
    free: Usd
    """Tokens that were billed at a price of 0."""
    unpriced: Usd
    """Tokens that the book has no price for."""
    tier_unknown: Usd
    """Tokens for which the client did not report a service tier, billed at another tier's price."""
    kind_moved: Usd
    """Tokens that client and provider count as different kinds, such as cache writes of 5 minutes and of 1 hour."""
    no_token_line: Usd
    """Amounts that are not for a model's tokens: web searches, storage, sessions."""
    rounding: Usd
    """Differences below the last digit that the provider transmits."""


class TierLine(BaseModel):
    """One service tier of a cell."""

    model_config = ConfigDict(extra="forbid")

    tier: str | None
    """Null: tokens for which the client did not report a tier."""
    seen_tokens: Count
    placed_tokens: Count
    """Tokens of unknown tier that were assigned to this tier."""
    billed_tokens: int | None
    """Null if the bill has no token line for this tier."""
    usage_tokens: int | None
    """By the provider's usage report; null if there is no separate report."""
    amount_usd: Usd | None
    rounding_usd: Usd | None = None
    """How far the amount may be off because of the digits that the provider transmits, at most 18 decimals."""
    list_amount_usd: Usd | None
    """Before discounts, if the provider reports it."""
    book_price_usd: Usd | None
    """Dollars per million tokens by the price book (the average over the seen requests), at most 12 decimals."""
    charged_price_usd: Usd | None
    """Amount per million billed tokens, at most 12 decimals."""


class ReconciledCell(BaseModel):
    """One model's tokens of one kind and context window, or one product."""

    model_config = ConfigDict(extra="forbid")

    model: str | None
    """Without the date of its snapshot; null for a product."""
    kind: str | None
    window: Literal["short", "long"] | None
    product: str | None
    """The line's text, if it is not for a model's tokens."""
    bill_usd: Usd
    estimate_usd: Usd
    difference_usd: Usd
    causes: Causes
    tiers: list[TierLine]
    quantity_from_usage: bool = False
    """The bill gave no quantity, so the usage report's was taken."""
    names: list[str] = []
    """The model as bill and telemetry write it: with the dates of snapshots, which may have prices of their own."""


class Restatement(BaseModel):
    """What changed when the provider last changed a bill that was complete before."""

    model_config = ConfigDict(extra="forbid")

    from_as_of: AwareDatetime
    from_bill_usd: Usd
    change_usd: Usd
    causes: Causes
    """Causes of the change: the split of the new bill minus that of the previous one."""


class ReconciledDay(BaseModel):
    """Value of a `reconciliation.days` message; key `provider|scope|day`. Money is null if the day could not be
    split.
    """

    model_config = ConfigDict(extra="forbid")

    provider: BilledBy
    scope: str
    """A connection's id (the first of its scope), or `all`, `outside`, `unmapped` or `plan`."""
    day: Day
    state: State
    """`open`: the day is not over for the provider; `provisional`: it may still change; `settled`; `partial`: something
    is missing, so the difference cannot be split."""
    reason: str | None
    """Why the difference could not be split."""
    as_of: AwareDatetime | None
    """When the bill was polled."""
    telemetry_as_of: AwareDatetime | None
    """When the newest row of telemetry was written."""
    connections: list[str]
    projects: list[str]
    api_keys: list[str]
    bill_usd: Usd | None
    estimate_usd: Usd
    """What the dashboards show. For the scope `plan`: what its usage would have cost through the API."""
    difference_usd: Usd | None
    """`bill_usd` minus `estimate_usd`."""
    causes: Causes | None
    seen_tokens: Count
    billed_tokens: int | None
    discount_ratio: Usd | None
    """Charged price divided by book price, if one ratio explains every line; at most 12 decimals."""
    other_currencies: dict[str, Usd] = Field(default_factory=dict)
    """Amounts that are not in dollars: shown, never added."""
    cells: list[ReconciledCell]
    restated: Restatement | None = None
    version: Version

    @property
    def key(self) -> bytes:
        """The key of its message."""
        return keys.join(self.provider, self.scope, self.day)
