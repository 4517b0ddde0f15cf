"""The catalogue of message kinds: name, version, model, and a JSON Schema for readers in other languages.

`schemas/json/` holds the generated files (`tallystream schemas --write schemas/json`); a test keeps both equal, and
another one fails when a model can no longer read what an earlier release wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import BaseModel

from tallystream.schemas import topic_names as topics
from tallystream.schemas.audit import AuditEntry
from tallystream.schemas.billing.accounts import AccountLink
from tallystream.schemas.calls import CallBatch
from tallystream.schemas.connections import Activity, Connection
from tallystream.schemas.corrections import PriceCorrection
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.links import SessionLink
from tallystream.schemas.openai import BilledDay, OpenAIRecord, PollCursor
from tallystream.schemas.port import PlannedRequest, SentEntity, SinkTerm, SweepRequest
from tallystream.schemas.reconciliation import ReconciledDay
from tallystream.schemas.rows import HourCost, SessionHourCost
from tallystream.schemas.usage import UsageBatch
from tallystream.schemas.witness import WitnessBatch

SCHEMA_HEADER: Final = "schema"
"""The message header that names a message's schema and its version: `usage-batch/1`."""


@dataclass(frozen=True)
class MessageSchema:
    """A kind of message, named by its header `schema`."""

    name: str
    version: int
    """Incremented for an incompatible change; readers then support both versions."""
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
    def headers(self) -> list[tuple[str, bytes]]:
        """All headers of a message of this kind, in the form that Kafka clients accept."""
        return [(SCHEMA_HEADER, self.header)]

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
        MessageSchema("usage-batch", 1, UsageBatch, topics.USAGE, "connection_id|session_id"),
        MessageSchema("price-correction", 1, PriceCorrection, topics.USAGE, "connection_id|session_id"),
        MessageSchema("call-batch", 1, CallBatch, topics.CALLS, "'calls'"),
        MessageSchema("witness-batch", 1, WitnessBatch, topics.WITNESS, "connection_id|session_id"),
        MessageSchema("session-hour-cost", 1, SessionHourCost, topics.SESSION_HOURS, "connection_id|session_id|hour"),
        MessageSchema("hour-cost", 1, HourCost, topics.HOURS, "partition|connection_id|hour|model|team"),
        MessageSchema("session-link", 1, SessionLink, topics.SESSION_LINKS, "connection_id|session_id"),
        MessageSchema("connection", 1, Connection, topics.CONNECTIONS, "connection_id"),
        MessageSchema("activity", 1, Activity, topics.ACTIVITY, "connection_id|signal|gateway"),
        MessageSchema("dead-letter", 1, DeadLetter, topics.DEADLETTERS, "source"),
        MessageSchema("openai-record", 1, OpenAIRecord, topics.OPENAI_RECORDS, "resource|query|bucket"),
        MessageSchema("billed-day", 1, BilledDay, topics.OPENAI_DAYS, "day|model|project_id"),
        MessageSchema("poll-cursor", 1, PollCursor, topics.POLLER_CONTROL, "resource|query"),
        MessageSchema("account-link", 1, AccountLink, topics.ACCOUNTS, "connection_id|provider|project_id|api_key_id"),
        MessageSchema("reconciled-day", 1, ReconciledDay, topics.RECONCILIATION_DAYS, "provider|scope|day"),
        MessageSchema("port-entity", 1, SentEntity, topics.PORT_SENT, "'entity'|blueprint|identifier"),
        MessageSchema("port-request", 1, PlannedRequest, topics.PORT_SENT, "'plan'|writer|slot"),
        MessageSchema("port-term", 1, SinkTerm, topics.PORT_SENT, "'term'"),
        MessageSchema("audit-entry", 1, AuditEntry, topics.CONSOLE_AUDIT, "subject"),
        MessageSchema("port-sweep", 1, SweepRequest, topics.PORT_SENT, "'sweep'"),
    )
}
"""By name."""
_BY_MODEL: Final = {schema.model: schema for schema in CATALOGUE.values()}


def schema_of(model: type[BaseModel]) -> MessageSchema:
    """Return the schema of the messages whose value is this model."""
    return _BY_MODEL[model]
