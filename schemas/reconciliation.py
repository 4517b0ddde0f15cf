"""Topic `reconciliation.days`: why a provider's bill of a UTC day and our estimate differ, by cause.

A message is one whole statement about one account scope's day, so its parts always belong together. In every statement,
and in every cell of it, the causes add up to exactly the difference.
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
    """Billed, and never seen by telemetry: other tools, other machines, lost telemetry."""
    overseen: Usd
    """Seen by telemetry and not billed here: a plan's sessions, an account that is not mapped, blocked requests."""
    timing: Usd
    """Billed on one day and seen on its neighbour; cancels over both."""
    lag: Usd
    """The provider's own usage and cost reports do not agree yet."""
    discount: Usd
    """Charged below list price."""
    book_price: Usd
    """The price book differs from what is charged, or listed where the provider says its list price."""
    free: Usd
    """Tokens that were billed at nothing."""
    unpriced: Usd
    """Tokens that the book has no price for."""
    tier_unknown: Usd
    """Tokens whose service tier the client did not say, and that were billed at another tier's price."""
    kind_moved: Usd
    """Tokens that client and provider count as different kinds, such as cache writes of 5 minutes and of 1 hour."""
    no_token_line: Usd
    """Amounts that are not for a model's tokens: web searches, storage, sessions."""
    rounding: Usd
    """Below the last digit the provider transmits."""


class TierLine(BaseModel):
    """One service tier of a cell."""

    model_config = ConfigDict(extra="forbid")

    tier: str | None
    """Null: tokens whose tier the client did not say."""
    seen_tokens: Count
    placed_tokens: Count
    """Tokens of unsaid tier that were put on this one."""
    billed_tokens: int | None
    """Null where this tier has no line of tokens."""
    usage_tokens: int | None
    """By the provider's usage report; null where it says nothing of its own."""
    amount_usd: Usd | None
    list_amount_usd: Usd | None
    """Before discounts, where the provider says it."""
    book_price_usd: Usd | None
    """Dollars per million tokens by the book (what the seen requests cost on average), at most 12 decimals."""
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
    """The line's text, where it is not for a model's tokens."""
    bill_usd: Usd
    estimate_usd: Usd
    difference_usd: Usd
    causes: Causes
    tiers: list[TierLine]
    quantity_from_usage: bool = False
    """The bill gave no quantity, so the usage report's was taken."""


class Restatement(BaseModel):
    """What changed when the provider last changed a bill that was complete before."""

    model_config = ConfigDict(extra="forbid")

    from_as_of: AwareDatetime
    from_bill_usd: Usd
    change_usd: Usd
    causes: Causes
    """Of the change: the split of the new bill less that of the one before."""


class ReconciledDay(BaseModel):
    """Value of a `reconciliation.days` message; key `provider|scope|day`. Money is null where there is no split."""

    model_config = ConfigDict(extra="forbid")

    provider: BilledBy
    scope: str
    """A connection's id (the first of its scope), or `all`, `outside`, `unmapped` or `plan`."""
    day: Day
    state: State
    """`open`: the day is not over for the provider; `provisional`: it may still change; `settled`; `partial`: something
    is missing, so there is no split."""
    reason: str | None
    """Why there is no split."""
    as_of: AwareDatetime | None
    """When the bill was polled."""
    telemetry_as_of: AwareDatetime | None
    """When the newest row of telemetry was written."""
    connections: list[str]
    projects: list[str]
    api_keys: list[str]
    bill_usd: Usd | None
    estimate_usd: Usd
    """What the dashboards show. Of the scope `plan`: what its usage would have cost by the API."""
    difference_usd: Usd | None
    """`bill_usd` less `estimate_usd`."""
    causes: Causes | None
    seen_tokens: Count
    billed_tokens: int | None
    discount_ratio: Usd | None
    """Charged over book price, where one ratio explains every line; at most 12 decimals."""
    other_currencies: dict[str, Usd] = Field(default_factory=dict)
    """Amounts that are not in dollars: shown, never added."""
    cells: list[ReconciledCell]
    restated: Restatement | None = None
    version: Version

    @property
    def key(self) -> bytes:
        """The key of its message."""
        return keys.join(self.provider, self.scope, self.day)
