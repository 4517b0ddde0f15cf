"""Topic `calls`: model calls as the spans of one OTLP request saw them, before spans of the same call are joined.

All messages of a deployment have one key, so that all sightings of a call reach one partition (docs/adr/0010): two
sightings of one call may share only tokens and time, or a response id, and may come from different traces, processes
and connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from tallystream.schemas import keys
from tallystream.schemas.clients.genai.read import SightingPack
from tallystream.schemas.clients.genai.sighting import Sighting
from tallystream.schemas.usage import Attribution

MAX_SIGHTINGS = 128
"""Maximum number of sightings in a message: at 4 KiB each, 512 KiB."""
KEY = keys.join("calls")
"""Key of every message."""
TICK = keys.join("tick")
"""Key of a message without a value, which only shows that time has passed: the joining stage has no clock but the
timestamps of this topic."""


class CallBatch(BaseModel):
    """Value of a `calls` message."""

    model_config = ConfigDict(extra="forbid")

    connection_id: str
    attribution: Attribution = Attribution()
    sightings: list[Sighting] = Field(min_length=1, max_length=MAX_SIGHTINGS)


def to_wire(pack: SightingPack, user: Callable[[str], str]) -> dict[str, Any]:
    """Return a pack as plain JSON, with each user's name replaced by `user(name)`."""
    attribution = pack.attribution
    if "user" in attribution:
        attribution = attribution | {"user": user(attribution["user"])}
    sightings = [seen.to_wire() for seen in pack.sightings]
    for wire in sightings:
        if "user" in wire:
            wire["user"] = user(wire["user"])
    return {"attribution": attribution, "sightings": sightings}


def from_wire(wire: dict[str, Any]) -> SightingPack:
    """Return the pack that `to_wire` wrote."""
    return SightingPack(wire["attribution"], [Sighting.from_wire(seen) for seen in wire["sightings"]])


def messages(pack: SightingPack, connection_id: str, user: Callable[[str], str]) -> Iterator[tuple[bytes, bytes]]:
    """Return (key, value) of each `calls` message of a pack, each a valid CallBatch by itself.

    Args:
        pack: as `read_sightings` returns it.
        connection_id: the connection that received it.
        user: maps a user's name to what is stored in its place, such as its keyed hash.

    """
    wire = to_wire(pack, user)
    for start in range(0, len(pack.sightings), MAX_SIGHTINGS):
        batch = {**wire, "connection_id": connection_id, "sightings": wire["sightings"][start : start + MAX_SIGHTINGS]}
        yield KEY, orjson.dumps(batch)
