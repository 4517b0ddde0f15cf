"""What a cost table shows: its view, its dimensions and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tallystream.agents.session_tree import SessionTree
from tallystream.schemas.errors import UsageError
from tallystream.schemas.usage import ATTRIBUTION_KEYS, TOKEN_COUNTS

FIELDS = (
    "connection_id", "client", "session_id", "hour", "model", "service_tier",
    "requests", *TOKEN_COUNTS, "total_tokens", "cost_usd", "reported_cost_usd", "unpriced_requests", "book", "final",
    "late_events", "inconsistent", "attribution", "version",
)  # fmt: skip
"""Fields of a table row, in their order; `hour` only in views by hour."""

_BUCKET = ("model", "service_tier", "book")
VIEWS: Mapping[str, tuple[str, ...]] = {
    "sessions": ("connection_id", "client", "session_id", *_BUCKET, *ATTRIBUTION_KEYS),
    "session-hours": ("connection_id", "client", "session_id", "hour", *_BUCKET, *ATTRIBUTION_KEYS),
    "hours": ("connection_id", "client", "hour", *_BUCKET),
    "models": ("connection_id", "client", *_BUCKET),
}
"""The dimensions of each view."""
_AXIS: Mapping[str, tuple[str, ...]] = {
    "sessions": (), "session-hours": ("hour",), "hours": ("hour",), "models": ("model",),
}  # fmt: skip
"""The dimensions that a view keeps when it is grouped `by` something."""

GROUPINGS: Mapping[str, str] = {
    **{key: key for key in ATTRIBUTION_KEYS},
    "connection": "connection_id", "session": "session_id", "client": "client", "provider": "provider",
    "model": "model", "service_tier": "service_tier", "book": "book", "hour": "hour",
}  # fmt: skip
"""Values of `by`, and the dimension each stands for."""


@dataclass(frozen=True)
class Query:
    """The parameters of a table. `since` and `until` are hours (schemas.hours): the first hour shown, and the first one
    after it that is not shown.

    `session` is an id, or its beginning and end around a `…`. `coarse` keeps only these dimensions of the view.

    Raises:
        UsageError: an unknown view or grouping.

    """

    view: str
    by: tuple[str, ...] = ()
    connection: str | None = None
    session: str | None = None
    since: int | None = None
    until: int | None = None
    coarse: tuple[str, ...] | None = None
    tree: SessionTree | None = None
    """Adds what a session started to its own row; then `session` selects it or a session above it."""

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise UsageError(f"unknown view {self.view!r}", f"views: {', '.join(VIEWS)}")
        for name in self.by:
            if name not in GROUPINGS:
                raise UsageError(f"cannot group by {name!r}", f"groupings: {', '.join(GROUPINGS)}")
        if self.tree is not None and (self.view != "sessions" or self.by):
            raise UsageError("only the rows of sessions have children", "use `tallystream cost sessions` without --by")

    @property
    def filtered(self) -> bool:
        """Whether some rows are left out."""
        return any(one is not None for one in (self.connection, self.session, self.since, self.until))

    @property
    def shares(self) -> bool:
        """Whether rows say which share of their session was seen."""
        return not self.by and {"connection_id", "session_id"} <= set(self.dimensions)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The dimensions of the rows."""
        if not self.by:
            return VIEWS[self.view] if self.coarse is None else self.coarse
        return tuple(dict.fromkeys((*_AXIS[self.view], *(GROUPINGS[name] for name in self.by))))

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of a row's fields, in their order: those of `by` first when they are not among them."""
        own = tuple(name for name in FIELDS if name != "hour" or "hour" in VIEWS[self.view] or "hour" in self.by)
        last = ("sessions",) if self.by else ("children",) if self.tree is not None else ()
        seen = ("seen_share",) if self.shares else ()
        return (*(name for name in self.by if name not in own), *own, *seen, *last)
