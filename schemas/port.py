"""Topic `port.sent`: what the Port sink has written to Port, and what it is about to write."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tallystream.schemas import keys

Writer = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
"""Identifies one run of a sink process."""


class PortSource(BaseModel):
    """The document that an entity was made from."""

    model_config = ConfigDict(extra="forbid")

    kind: str
    key: str


class SentEntity(BaseModel):
    """An entity as Port has acknowledged it; key `entity|blueprint|identifier`. A tombstone means that the retention
    rule deleted it there.
    """

    model_config = ConfigDict(extra="forbid")

    blueprint: str
    identifier: str
    digest: str = Field(pattern=r"^[0-9a-f]{24}$")
    """Digest of its body: an entity whose body has the same digest need not be sent again."""
    source: PortSource
    order: int
    """Of two documents of one kind that produce this entity, the one with the higher order is valid."""
    at_ms: int | None
    """The document's own time, for the retention rule; null: kept forever."""
    writer: Writer

    @property
    def message_key(self) -> bytes:
        """The key of its message."""
        return keys.join("entity", self.blueprint, self.identifier)


class PlannedEntity(BaseModel):
    """An entity of a request that may be in flight."""

    model_config = ConfigDict(extra="forbid")

    blueprint: str
    identifier: str
    source: PortSource


class PlannedRequest(BaseModel):
    """A bulk request that is about to be sent; key `plan|writer|slot`, replaced by the next request of the slot.

    If its writer is gone, the request may have been carried out; if the writer is only paused, it may still be carried
    out until `until_ms`, when the access token it carries has expired.
    """

    model_config = ConfigDict(extra="forbid")

    writer: Writer
    slot: int
    until_ms: int
    entities: list[PlannedEntity]

    @property
    def message_key(self) -> bytes:
        """The key of its message."""
        return keys.join("plan", self.writer, str(self.slot))


class SweepRequest(BaseModel):
    """Asks for an immediate comparison of everything with what was sent; key `sweep`."""

    model_config = ConfigDict(extra="forbid")

    blueprint: str | None = None
    """The blueprint whose entities were reset before; null: all."""


class SinkTerm(BaseModel):
    """The sink that writes from now on; key `term`."""

    model_config = ConfigDict(extra="forbid")

    writer: Writer
