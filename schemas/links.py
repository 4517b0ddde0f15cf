"""Topic `session.links`: which session started which, as the parent's own telemetry tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import orjson
from pydantic import BaseModel, ConfigDict, Field

from tallystream.schemas import keys

if TYPE_CHECKING:
    from tallystream.schemas.clients.links import FoundLink

SessionId = Annotated[str, Field(min_length=1, max_length=256)]


class SessionLink(BaseModel):
    """A session that another session started; key `connection_id|session_id`.

    It is absolute: a copy changes nothing, and of two different ones the later one counts. A session whose parent is
    unknown has none.
    """

    model_config = ConfigDict(extra="forbid")

    connection_id: str = Field(min_length=1, max_length=256)
    session_id: SessionId
    parent_session_id: SessionId


def message(link: FoundLink, connection_id: str) -> tuple[bytes, bytes]:
    """Return key and value of the message of a link."""
    value = {"connection_id": connection_id, "session_id": link.session, "parent_session_id": link.parent}
    return keys.join(connection_id, link.session), orjson.dumps(value)
