"""Topic `usage.witness`: what metrics and spans say of usage that is counted from logs (`clients/witnesses.py`).

Statements are facts with an identity: a reader keeps each once, and of a cumulative one, in each hour, the highest
counts. So copies, restarts and the order of messages change no sum. They are never a cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from tallystream.schemas import keys
from tallystream.schemas.usage import MAX_SESSION_BYTES, Client, Count

if TYPE_CHECKING:
    from tallystream.schemas.clients.witnesses import Statement, WitnessPack

MAX_IN_MESSAGE = 512
"""Maximum number of statements in a message: at 150 bytes each, 80 KiB."""


class WitnessStatement(BaseModel):
    """What one metric point or one span says."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Equal for every copy; of a cumulative metric, for all points of a series since the same start."""
    source: Literal["metrics", "spans"]
    at: int = Field(gt=0, lt=2**63)
    """Time of the point or of the span's end, ns since the epoch."""
    cumulative: bool = False
    """Whether the counts are those since the start of the series. Otherwise they are new."""
    input: Count = 0
    """Input tokens, with cached ones and those of tools."""
    output: Count = 0
    """Output tokens, with reasoning."""


class WitnessBatch(BaseModel):
    """Statements of one session from one request; key `connection_id|session_id`."""

    model_config = ConfigDict(extra="forbid")

    connection_id: str = Field(min_length=1, max_length=256)
    client: Client
    version: str = ""
    """The client's version, empty when it is not known."""
    session_id: str = Field(default="", max_length=MAX_SESSION_BYTES)
    """Empty when the client does not say (the metrics of Codex)."""
    statements: list[WitnessStatement] = Field(min_length=1, max_length=MAX_IN_MESSAGE)


def messages(pack: WitnessPack, connection_id: str) -> Iterator[tuple[bytes, bytes]]:
    """Return (key, value) of each message of a pack, each a valid WitnessBatch by itself."""
    head = {"connection_id": connection_id} | _head(pack)
    key = keys.join(connection_id, pack.session_id)
    for start in range(0, len(pack.statements), MAX_IN_MESSAGE):
        part = pack.statements[start : start + MAX_IN_MESSAGE]
        yield key, orjson.dumps(head | {"statements": [_wire(one) for one in part]})


def to_wire(pack: WitnessPack) -> dict[str, Any]:
    """Return a pack as plain JSON."""
    return _head(pack) | {"statements": [_wire(one) for one in pack.statements]}


def from_wire(wire: dict[str, Any]) -> WitnessPack:
    """Return the pack that `to_wire` wrote."""
    # Here, because readers of the topic need no client's normaliser, and loading all of them takes time.
    from tallystream.schemas.clients.witnesses import Statement, WitnessPack

    said = [
        Statement(one["id"], one["source"], one["at"], one["cumulative"], one["input"], one["output"])
        for one in wire["statements"]
    ]
    return WitnessPack(wire["client"], wire["version"], wire["session_id"], said)


def _head(pack: WitnessPack) -> dict[str, Any]:
    return {"client": pack.client, "version": pack.version, "session_id": pack.session_id}


def _wire(one: Statement) -> dict[str, Any]:
    return {
        "id": one.id,
        "source": one.source,
        "at": one.at_ns,
        "cumulative": one.cumulative,
        "input": one.input,
        "output": one.output,
    }
