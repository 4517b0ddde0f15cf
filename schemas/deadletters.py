"""Topic `deadletters`: records that were not counted, with the reason. The key is `source`, so a replayed source
overwrites its own letter.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tallystream.schemas.errors import Reason


class DeadLetter(BaseModel):
    """Value of a `deadletters` message. It never holds content: `record` is the allow-listed part, and of a body only
    size and hash are kept.
    """

    model_config = ConfigDict(extra="forbid")

    source: str
    """Where it came from, unique per record.

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
    """The number of records of one body that it stands for, all rejected for the same reason, when there are
    several."""
    size: int | None = None
    sha256: str | None = None
