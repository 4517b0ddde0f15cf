"""Every kind of message: its name, its version, its model, and the JSON Schema others can read it by.

`schemas/json/` holds the generated files (`tallystream schemas --write schemas/json`); a test holds both equal, and
another one fails when a model no longer reads what an earlier release wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import BaseModel

from tallystream.schemas.calls import CallBatch
from tallystream.schemas.connections import Activity, Connection
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.openai import BilledDay, OpenAIRecord, PollCursor
from tallystream.schemas.port import PlannedRequest, SentEntity, SinkTerm, SweepRequest
from tallystream.schemas.rows import HourCost, SessionHourCost
from tallystream.schemas.usage import UsageBatch


@dataclass(frozen=True)
class MessageSchema:
    """A kind of message, as its header `schema` names it."""

    name: str
    version: int
    """Raised when a change is not compatible; readers then know both."""
    model: type[BaseModel]
    topic: str
    """Without the deployment's prefix."""
    key: str
    """Parts of the message's key, joined by `|`."""

    @property
    def header(self) -> bytes:
        """Value of the message header `schema`."""
        return f"{self.name}/{self.version}".encode()

    @property
    def file(self) -> str:
        """Name of its file in `schemas/json/`."""
        return f"{self.name}.json"

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of the message's value."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:tallystream:{self.name}:{self.version}",
        } | self.model.model_json_schema()

    def rendered(self) -> bytes:
        """Return the JSON Schema as its file holds it."""
        return orjson.dumps(self.json_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


CATALOGUE: Final = {
    schema.name: schema
    for schema in (
        MessageSchema("usage-batch", 1, UsageBatch, "usage", "connection_id|session_id"),
        MessageSchema("call-batch", 1, CallBatch, "calls", "'calls'"),
        MessageSchema("session-hour-cost", 1, SessionHourCost, "cost.session-hours", "connection_id|session_id|hour"),
        MessageSchema("hour-cost", 1, HourCost, "cost.hours", "partition|connection_id|hour|model|team"),
        MessageSchema("connection", 1, Connection, "connections", "connection_id"),
        MessageSchema("activity", 1, Activity, "activity", "connection_id|signal|gateway"),
        MessageSchema("dead-letter", 1, DeadLetter, "deadletters", "source"),
        MessageSchema("openai-record", 1, OpenAIRecord, "openai.records", "resource|query|bucket"),
        MessageSchema("billed-day", 1, BilledDay, "openai.days", "day|model|project_id"),
        MessageSchema("poll-cursor", 1, PollCursor, "openai.control", "resource|query"),
        MessageSchema("port-entity", 1, SentEntity, "port.sent", "'entity'|blueprint|identifier"),
        MessageSchema("port-request", 1, PlannedRequest, "port.sent", "'plan'|writer|slot"),
        MessageSchema("port-term", 1, SinkTerm, "port.sent", "'term'"),
        MessageSchema("port-sweep", 1, SweepRequest, "port.sent", "'sweep'"),
    )
}
"""By name."""
