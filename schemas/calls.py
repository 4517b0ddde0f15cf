"""Topic `calls`: what spans of one OTLP request saw of model calls, before it is known which of them saw the same.

All messages of a deployment have one key, so that whatever saw a call meets in one partition (docs/adr/0003): two
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

MAX_SIGHTINGS = 256
"""Sightings a message holds at most."""
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


def messages(pack: SightingPack, connection_id: str, user: Callable[[str], str]) -> Iterator[tuple[bytes, bytes]]:
    """Return (key, value) of each `calls` message of a pack, each a valid CallBatch by itself.

    Args:
        pack: as `read_sightings` returns it.
        connection_id: where it came in.
        user: what stands for a user's name, such as its keyed hash.

    """
    attribution = pack.attribution
    if "user" in attribution:
        attribution = attribution | {"user": user(attribution["user"])}
    for start in range(0, len(pack.sightings), MAX_SIGHTINGS):
        sightings: list[dict[str, Any]] = []
        for seen in pack.sightings[start : start + MAX_SIGHTINGS]:
            wire = seen.to_wire()
            if seen.user is not None:
                wire["user"] = user(seen.user)
            sightings.append(wire)
        yield KEY, orjson.dumps({"connection_id": connection_id, "attribution": attribution, "sightings": sightings})
