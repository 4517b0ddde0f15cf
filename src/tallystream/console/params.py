"""Query parameters of the pages and the API. Models check them, and the OpenAPI document is generated from these."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tallystream.agents.ledger.queries.sessions import SessionFilter
from tallystream.console.errors import BadRequestError
from tallystream.schemas.usage import ATTRIBUTION_KEYS

Format = Literal["json", "csv"]
_EPOCH = date(1970, 1, 1)
Text = Field(default=None, max_length=300, pattern=r"^[^\x00]*$")
Named = Literal["team", "user", "repo", "branch", "env", "host", "cost_center", "agent", "billing", "account"]
"""The attribution's keys."""
Params = TypeVar("Params", bound=BaseModel)


class FormatParams(BaseModel):
    """The format of the answer."""

    model_config = ConfigDict(extra="ignore")

    format: Format = "json"
    """`csv`: one table only."""


class OverviewParams(FormatParams):
    """The period of the overview."""

    range: Literal["today", "7d", "30d"] = "today"
    table: Literal["shares", "hours", "periods"] = "shares"
    """Which table, as CSV."""


class SessionParams(FormatParams):
    """Filters and order of the list of sessions."""

    q: str | None = Text
    """The beginning of a session id."""
    connection: str | None = Text
    client: str | None = Text
    model: str | None = Text
    team: str | None = Text
    user: str | None = Text
    repo: str | None = Text
    branch: str | None = Text
    env: str | None = Text
    host: str | None = Text
    cost_center: str | None = Text
    agent: str | None = Text
    billing: str | None = Text
    account: str | None = Text
    without: (
        Literal["team", "user", "repo", "branch", "env", "host", "cost_center", "agent", "billing", "account"] | None
    ) = None
    """Sessions with usage that names no such value."""
    since: date | None = None
    """The first UTC day."""
    until: date | None = None
    """The last UTC day."""
    hour: datetime | None = None
    """Only this UTC hour, such as `2026-11-21T14:00Z`; then `since` and `until` do not matter."""
    sort: Literal["cost", "recent", "tokens"] = "cost"
    after: str | None = Field(default=None, max_length=200)
    """`next` of the previous page."""

    def wanted(self) -> SessionFilter:
        """Return the parameters as a filter."""
        given = {name: value for name in ATTRIBUTION_KEYS if (value := getattr(self, name))}
        hour = None if self.hour is None else _hour_of(self.hour)
        return SessionFilter(
            search=self.q,
            connection=self.connection,
            client=self.client,
            model=self.model,
            since=hour if hour is not None else None if self.since is None else _hour(self.since),
            until=hour + 1 if hour is not None else None if self.until is None else _hour(self.until) + 24,
            attribution=given,
            without=self.without,
        )


class OneSessionParams(FormatParams):
    """Which session."""

    connection: str = Field(min_length=1, max_length=300, pattern=r"^[^\x00]*$")
    id: str = Field(min_length=1, max_length=300, pattern=r"^[^\x00]*$")
    table: Literal["buckets", "session", "charges", "prices", "children", "deadletters"] = "buckets"
    """Which table, as CSV."""


class DeadLetterParams(FormatParams):
    """Filters of the list of dead letters."""

    reason: str | None = Text
    after: str | None = Field(default=None, max_length=1500, pattern=r"^[^\x00]*$")
    table: Literal["rows", "reasons"] = "rows"
    """Which table, as CSV."""


class BillParams(FormatParams):
    """How many days."""

    days: int = Field(default=30, ge=1, le=400)
    table: Literal["days", "causes"] = "days"
    """Which table, as CSV."""


class ConnectionsParams(FormatParams):
    """The format of the answer."""

    table: Literal["connections", "billing"] = "connections"
    """Which table, as CSV."""


class HealthParams(FormatParams):
    """The format of the answer."""

    table: Literal["components", "findings"] = "components"
    """Which table, as CSV."""


class OpenAIParams(FormatParams):
    """How many days, and of which one the models are listed."""

    days: int = Field(default=60, ge=1, le=400)
    day: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    """Only this UTC day's models; by default those of all days."""
    table: Literal["days", "sums"] = "days"
    """Which table, as CSV."""


def read(model: type[Params], query: Mapping[str, str]) -> Params:
    """Return the parameters of a request. Empty ones count as not given.

    Raises:
        BadRequestError: a parameter is not valid.

    """
    try:
        return model.model_validate({name: value for name, value in query.items() if value != ""})
    except ValidationError as exc:
        raise invalid(exc) from None


def invalid(exc: ValidationError) -> BadRequestError:
    """Return what is wrong, without repeating the input."""
    wrong = "; ".join(
        f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}"
        for error in exc.errors(include_input=False, include_url=False)
    )
    return BadRequestError(wrong, "/api/v1/openapi.json documents the parameters")


def _hour(day: date) -> int:
    days = (min(max(day, _EPOCH), date(9999, 12, 30)) - _EPOCH) // timedelta(days=1)
    return days * 24


def _hour_of(at: datetime) -> int:
    utc = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0, (utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(hours=1))


def today(now_ns: int) -> date:
    """Return the UTC day of a time."""
    return datetime.fromtimestamp(now_ns // 10**9, UTC).date()
