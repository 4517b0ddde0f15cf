"""Topic `usage`, besides usage itself: the price of requests that are counted is corrected.

`tallystream reprice --apply` writes these messages to the partition of the session, so that the worker which owns the
session's rows applies them in the order of the partition. They contain costs and never tokens.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tallystream.schemas.rows import CostBucket, Hour
from tallystream.schemas.usage import MAX_BYTES, Count
from tallystream.schemas.versions import Version

MAX_CORRECTION_BYTES = MAX_BYTES
"""Maximum size of a message's value in bytes."""
Cost = Annotated[str, Field(pattern=r"^[0-9]{1,24}(\.[0-9]{1,12})?$")]
"""Dollars as an exact decimal string, to the pico-dollar."""
EventId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class PriceMove(BaseModel):
    """All requests of one model, tier, speed and attribution that other books have priced, with their cost by the new
    book.
    """

    model_config = ConfigDict(extra="forbid")

    was: list[CostBucket] = Field(min_length=1)
    """The buckets as the row shows them, one for each book. If one of them has changed, nothing is moved."""
    cost_usd: Cost | None
    """Their cost by the new book; null when it prices none of the requests."""
    unpriced_requests: Count
    """Requests that the new book cannot price."""


class PriceCorrection(BaseModel):
    """Moves requests of a session-hour to another price book. It changes costs, never tokens."""

    model_config = ConfigDict(extra="forbid")

    connection_id: str
    session_id: str
    hour: Hour
    row_version: Version
    """Version of the row that the costs were computed for. A correction that was applied after it makes this one
    outdated."""
    book: str = Field(min_length=1, max_length=256)
    """Hash of the new book."""
    moves: list[PriceMove] = Field(min_length=1)
    costs: dict[EventId, Cost | None] = {}
    """Cost of each request by the new book, for clients that name their requests: a larger record of one of these
    requests takes its cost back."""
