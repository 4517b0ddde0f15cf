"""Topics `cost.session-hours` and `cost.hours`: absolute, versioned rows.

A row is never a delta. Of two rows with the same key the one with the higher `version` is valid, of equal versions the
later one. All rows of a key come from one partition's offsets, so only versions of the same key can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tallystream.schemas.usage import TOKEN_COUNTS, Attribution, Client, Count
from tallystream.schemas.versions import Version

Hour = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:00:00Z$")]
Usd = Annotated[str, Field(pattern=r"^-?\d+(\.\d+)?$")]


class Sums(BaseModel):
    """The values that are added up, the same in every table."""

    model_config = ConfigDict(extra="forbid")

    requests: Count
    input_uncached: Count
    cache_read: Count
    cache_write_5m: Count
    cache_write_1h: Count
    output: Count
    reasoning: Count
    """A part of `output`."""
    tool: Count
    total_tokens: Count
    """Sum of the disjoint counts."""
    cost_usd: Usd | None
    """By the price book; null when no request could be priced."""
    reported_cost_usd: Usd | None
    """By the client itself; null when it does not report a cost."""
    unpriced_requests: Count
    """Requests that `cost_usd` leaves out, because the book does not know the model or the tier."""
    late_events: Count
    """Events that arrived after the hour was final (its end and a grace of 1 h)."""
    inconsistent: Count = 0
    """Requests whose record contradicts itself in what breaks a count down: the whole counts, the parts were made to
    fit. Rows of older versions do not say."""


SUM_COUNTS = ("requests", *TOKEN_COUNTS, "total_tokens", "unpriced_requests", "late_events", "inconsistent")
"""The whole numbers of `Sums`, in the order in which tables show them."""
_counts = itemgetter(*SUM_COUNTS)
_ADDED_LATER = {"inconsistent": 0}


def counts_of(sums: Mapping[str, object]) -> tuple[Any, ...]:
    """Return a row's whole numbers in the order of SUM_COUNTS; an older version's row has fewer.

    Raises:
        KeyError: it lacks one that every version writes.

    """
    try:
        found: tuple[Any, ...] = _counts(sums)
    except KeyError:
        found = _counts(_ADDED_LATER | dict(sums))
    return found


class CostBucket(Sums):
    """Sums of one (model, service_tier, speed, book, attribution)."""

    model: str
    service_tier: str | None
    speed: str | None
    book: str
    """Hash of the price book the requests were priced with."""
    attribution: Attribution


class SessionHourCost(BaseModel):
    """One session in one UTC hour; key `connection_id|session_id|hour`."""

    model_config = ConfigDict(extra="forbid")

    connection_id: str
    client: Client
    provider: str
    session_id: str
    hour: Hour
    version: Version
    duplicates: Count
    """Copies of counted events that arrived and were not counted again."""
    buckets: list[CostBucket]


class AgentCost(Sums):
    """The part of an HourCost that one agent used."""

    agent: str | None
    """As in the attribution; null: of requests that name none."""


class HourCost(Sums):
    """The share of one partition in (connection, hour, model, team); key `partition|connection_id|hour|model|team`.

    Readers add up the partials of all partitions.
    """

    partition: Count
    connection_id: str
    hour: Hour
    model: str
    team: str | None
    version: Version
    agents: list[AgentCost] | None = None
    """The row by agent: these add up to the row. Null: not told apart, because the row has more than 100 agents or was
    written by a release that did not tell."""
