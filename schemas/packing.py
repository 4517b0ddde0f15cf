"""Turns packs into Kafka messages: each holds events of one session, is keyed by the session and has a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from tallystream.schemas import keys
from tallystream.schemas.clients.logs import Pack
from tallystream.schemas.usage import MAX_BYTES, MAX_EVENTS


def messages(pack: Pack, connection_id: str, user: Callable[[str], str]) -> Iterator[tuple[bytes, bytes]]:
    """Return (key, value) of each `usage` message of a pack, each a valid UsageBatch by itself.

    Args:
        pack: as `normalise_logs` returns it.
        connection_id: the connection that received it.
        user: maps a user's name to what is stored in its place, such as its keyed hash.

    """
    attribution = pack.attribution
    if "user" in attribution:
        attribution = attribution | {"user": user(attribution["user"])}
    head = {
        "connection_id": connection_id,
        "client": pack.client,
        "provider": pack.provider,
        "session_id": pack.session_id,
        "attribution": attribution,
    }
    key = keys.join(connection_id, pack.session_id)
    for start in range(0, len(pack.events), MAX_EVENTS):
        for value in _values(head, pack.events[start : start + MAX_EVENTS]):
            yield key, value


def _values(head: dict[str, Any], events: list[dict[str, Any]]) -> Iterator[bytes]:
    value = orjson.dumps(head | {"events": events})
    if len(value) <= MAX_BYTES or len(events) == 1:
        # orjson over-allocates 4 KiB for each value; a copy needs only its own size
        yield memoryview(value).tobytes()
        return
    middle = len(events) // 2
    yield from _values(head, events[:middle])
    yield from _values(head, events[middle:])
