"""Topic `console.audit`: who changed what in the console, and when. Never a secret."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Action = Literal["connection.create", "connection.rotate", "connection.revoke", "deadletters.replay"]


class AuditEntry(BaseModel):
    """Value of a `console.audit` message; key `subject`. Written before the change, and again with what came of it."""

    model_config = ConfigDict(extra="forbid")

    id: str
    """Common to the entries of one change."""
    at: AwareDatetime
    person: str
    """As the proxy names them; `local` for who logged in with a link."""
    remote: str
    """Address the request came from."""
    action: Action
    subject: str
    """A connection's public id; `-` where there is none yet."""
    outcome: Literal["asked", "done", "failed"]
    detail: dict[str, str] = Field(default_factory=dict)
