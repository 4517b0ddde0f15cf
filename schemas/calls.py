"""Topic `calls`: what spans of one OTLP request saw of model calls, before it is known which of them saw the same.

All messages of a deployment have one key, so that whatever saw a call meets in one partition (docs/adr/0008): two
sightings of one call may have nothing in common but tokens and time, or a response id, and may come from different
traces, processes and connections.
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
"""Sightings a message holds at most: of 4 KiB each at the very most, 512 KiB."""
KEY = keys.join("calls")
"""Key of every message."""
TICK = keys.join("tick")
"""Key of a message without a value: time has passed. The stage that joins knows no other clock than the topic's."""


class CallBatch(BaseModel):
    """Value of a `calls` message."""

    model_config = ConfigDict(extra="forbid")

    connection_id: str
    attribution: Attribution = Attribution()
    sightings: list[Sighting] = Field(min_length=1, max_length=MAX_SIGHTINGS)


def to_wire(pack: SightingPack, user: Callable[[str], str]) -> dict[str, Any]:
    """Return a pack as plain JSON, with `user` of each user's name in place of it."""
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
        connection_id: where it came in.
        user: what stands for a user's name, such as its keyed hash.

    """
    wire = to_wire(pack, user)
    for start in range(0, len(pack.sightings), MAX_SIGHTINGS):
        batch = {**wire, "connection_id": connection_id, "sightings": wire["sightings"][start : start + MAX_SIGHTINGS]}
        yield KEY, orjson.dumps(batch)
