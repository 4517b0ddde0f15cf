"""Topic `port.sent`: what the Port sink has written to Port, and what it was about to write."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tallystream.schemas import keys

Writer = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
"""One sink process, from its start to its end."""


class PortSource(BaseModel):
    """The document an entity was made of."""

    model_config = ConfigDict(extra="forbid")

    kind: str
    key: str


class SentEntity(BaseModel):
    """An entity as Port has acknowledged it; key `entity|blueprint|identifier`. A tombstone: deleted there, by rule."""

    model_config = ConfigDict(extra="forbid")

    blueprint: str
    identifier: str
    digest: str = Field(pattern=r"^[0-9a-f]{24}$")
    """Of its body: an entity whose body has this digest need not be sent again."""
    source: PortSource
    order: int
    """Of two documents of one kind that give this entity, the one with the higher order is right."""
    at_ms: int | None
    """The document's own time, for the retention rule; null: kept for ever."""
    writer: Writer

    @property
    def message_key(self) -> bytes:
        """The key of its message."""
        return keys.join("entity", self.blueprint, self.identifier)


class PlannedEntity(BaseModel):
    """An entity of a request that may be under way."""

    model_config = ConfigDict(extra="forbid")

    blueprint: str
    identifier: str
    source: PortSource


class PlannedRequest(BaseModel):
    """A bulk request that was about to be sent; key `plan|writer|slot`, replaced by the slot's next one.

    If its writer is gone, it may have been carried out, or may be yet if the writer is only paused, until `until_ms`:
    then the access token it carries has expired.
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
    """Everything is to be compared with what was sent, now; key `sweep`."""

    model_config = ConfigDict(extra="forbid")

    blueprint: str | None = None
    """Whose entities were forgotten before; null: all."""


class SinkTerm(BaseModel):
    """The sink that writes from now on; key `term`."""

    model_config = ConfigDict(extra="forbid")

    writer: Writer
