"""Topic `deadletters`: what did not count, with the reason. Key `source`, so that a replayed source repeats itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tallystream.schemas.errors import Reason


class DeadLetter(BaseModel):
    """Never holds content: `record` is the allow-listed part, a body is only its size and hash."""

    model_config = ConfigDict(extra="forbid")

    source: str
    """Where it came from, unique a record.

    `usage|3|1204|0` (topic, partition, offset, index) or `gateway|<connection>|<body's hash>|<index>`.
    """
    reason: Reason
    detail: str
    """For people: what exactly was wrong."""
    at: datetime
    """When it was set aside: append time of its message, or the gateway's time."""
    connection_id: str | None = None
    client: str | None = None
    session_id: str | None = None
    record: dict[str, Any] = Field(default_factory=dict)
    """Allow-listed fields of the record. For a usage event: the whole event, so that it can be replayed."""
    count: int | None = None
    """How many records of one body it stands for, set aside for the same reason, when it is more than this one."""
    size: int | None = None
    sha256: str | None = None
