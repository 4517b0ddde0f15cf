"""Topic `console.audit`: who changed what in the console, and when. Entries never contain secrets."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Action = Literal["connection.create", "connection.rotate", "connection.revoke", "deadletters.replay"]


class AuditEntry(BaseModel):
    """Value of a `console.audit` message; key `subject`. Written before the change, and again with its outcome."""

    model_config = ConfigDict(extra="forbid")

    id: str
    """Shared by all entries of one change."""
    at: AwareDatetime
    person: str
    """The user's name as the proxy passes it; `local` for a user who logged in with a link."""
    remote: str
    """Address the request came from."""
    action: Action
    subject: str
    """A connection's public id; `-` when the connection does not exist yet."""
    outcome: Literal["asked", "done", "failed"]
    detail: dict[str, str] = Field(default_factory=dict)
