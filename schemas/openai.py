"""Topics `openai.records`, `openai.days` and `openai.control`: usage and bills as OpenAI itself reports them.

No value is a delta, and values of different resources are never added up: `/usage`, `/organization/usage/*` and the two
billing endpoints report the same requests in four different ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from tallystream.schemas import exact, keys
from tallystream.schemas.billing.amounts import normalised
from tallystream.schemas.rows import Usd
from tallystream.schemas.usage import Count
from tallystream.schemas.versions import Version

Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
CURRENT = "current"
"""Bucket name for a resource without time, such as `/models`: its current state."""
DAY_S = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OpenAIRecord(BaseModel):
    """One complete bucket of one query; key `resource|query|bucket`.

    Of two records with the same key, the one with the newer `polled_at` is valid, whatever their order in the topic,
    and replaces all rows of the other. A bucket without rows means that nothing happened in it.
    """

    model_config = ConfigDict(extra="forbid")

    resource: str
    """Path below the base URL: `/organization/costs`."""
    query: Fingerprint
    """Identifies the resource and its parameters other than time: another grouping is another query."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Those parameters in readable form."""
    bucket: str
    """`2026-11-21` (a UTC day), `2026-11-21T14:00:00Z` (an hour or a minute) or `current`."""
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    """Exclusive; both null for `current`."""
    polled_at: AwareDatetime
    """Processing time, µs: when the query began, so the rows are at least as new. It increases with every record of a
    key, even if another machine with another clock polls."""
    digest: Fingerprint
    """Digest of the rows as a set, see `digest`."""
    rows: list[dict[str, Any]]
    """As OpenAI gave them, in its order and units (cents stay cents). Whole numbers are JSON integers, others are
    decimal strings: a float would not be exact."""
    decimals: list[str] = Field(default_factory=list)
    """Paths of the decimal strings in `rows`: `[].amount.value`, `[].line_items[].cost`; as exact positions such as
    `[3].amount.value` if other values at the same path are strings that OpenAI itself wrote."""

    @property
    def key(self) -> bytes:
        """The key of its message."""
        return keys.join(self.resource, self.query, self.bucket)

    def exact_rows(self) -> list[dict[str, Any]]:
        """Return the rows with Decimals in place of the decimal strings."""
        rows: list[dict[str, Any]] = exact.unpack(self.rows, self.decimals)
        return rows

    def json_rows(self) -> str:
        """Return the rows as a JSON array with all numbers as number literals, as OpenAI wrote them, for JQ."""
        return exact.dumps(self.exact_rows())


class PollCursor(BaseModel):
    """How far a query has been polled; topic `openai.control`, key `resource|query`.

    Every bucket of [first, settled) was complete according to OpenAI when it was last fetched, and is not requested
    again. Later ones may still change.
    """

    model_config = ConfigDict(extra="forbid")

    resource: str
    query: Fingerprint
    first: AwareDatetime
    settled: AwareDatetime
    polled_at: AwareDatetime

    @property
    def key(self) -> bytes:
        """The key of its message."""
        return keys.join(self.resource, self.query)


class Billed(BaseModel):
    """The cost of a day according to one resource."""

    model_config = ConfigDict(extra="forbid")

    resource: str
    usd: Usd
    """Exact sum of the resource's rows, with cents converted to dollars."""
    polled_at: AwareDatetime


class Used(BaseModel):
    """The usage of a day according to one resource: sums of its own numbers under its own names."""

    model_config = ConfigDict(extra="forbid")

    resource: str
    counts: dict[str, Count]
    """`input_tokens`, `num_model_requests`, ... for `/organization/usage/*`; `n_requests`, ... for `/usage`."""
    polled_at: AwareDatetime


class BilledDay(BaseModel):
    """Value of an `openai.days` message; key `day|model|project_id`. The values of different resources are listed side
    by side and never added up.
    """

    model_config = ConfigDict(extra="forbid")

    day: Day
    model: str | None
    """As the resource names it; null if it does not name one (a line item that does not belong to a model)."""
    project_id: str | None
    """Null if the resource does not name one."""
    billed: list[Billed] = Field(default_factory=list)
    used: list[Used] = Field(default_factory=list)
    version: Version

    @property
    def key(self) -> bytes:
        """The key of its message; an unknown model or project is an empty part."""
        return keys.join(self.day, self.model or "", self.project_id or "")


BUCKETED = "/organization/"
"""Endpoints below it answer with buckets, `{object, start_time, end_time, results}`, whose rows are the `results`."""


def bucket_of(start: int, end: int, rows: list[Any]) -> dict[str, Any]:
    """Return a bucket as the endpoint wrote it; times in seconds since the epoch."""
    return {"object": "bucket", "start_time": start, "end_time": end, "results": rows}


def digest(rows: Iterable[Mapping[str, object]]) -> str:
    """Return 64 bits of SHA-256 over the exact rows as a set: their order, the order of keys and the spelling of
    amounts do not matter (`"4.50"`, `4.5`).
    """
    whole = sha256()
    for text in sorted(exact.canonical(normalised(row)) for row in rows):
        whole.update(text.encode() + b"\n")
    return whole.hexdigest()[:16]


def at(seconds: int) -> datetime:
    """Return a time in whole seconds since the epoch as an aware datetime."""
    return _EPOCH + timedelta(seconds=seconds)


def seconds(when: datetime) -> int:
    """Return whole seconds since the epoch, floored."""
    return (when - _EPOCH) // timedelta(seconds=1)


def bucket_name(start: int, width: int) -> str:
    """Return the bucket's name: (1_795_219_200, 86_400) -> "2026-11-21"."""
    return at(start).strftime("%Y-%m-%d" if width == DAY_S else "%Y-%m-%dT%H:%M:%SZ")


def cents_to_usd(cents: int | Decimal) -> Decimal:
    """Return an amount in cents as dollars, exactly."""
    return Decimal(cents).scaleb(-2)
