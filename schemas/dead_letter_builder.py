"""Builds the dead letters of all components: gateway, worker, sink and the agent of OpenAI's days.

Dead letters for the same source have the same key, so that processing it again overwrites the letter instead of adding
one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from tallystream.schemas import keys
from tallystream.schemas.errors import Reason

MAX_DETAIL = 2_000
"""Maximum characters of `detail`; longer ones are cut."""


def dead_letter(
    source: tuple[str, ...],
    reason: Reason,
    detail: str,
    at: datetime,
    *,
    connection_id: str | None = None,
    client: str | None = None,
    session_id: str | None = None,
    record: Mapping[str, Any] | orjson.Fragment | None = None,
    count: int | None = None,
    size: int | None = None,
    sha256: str | None = None,
) -> tuple[bytes, bytes]:
    """Return key and value of a `deadletters` message; the value is a valid `DeadLetter`.

    Args:
        source: where it came from, unique per record: (topic, partition, offset, index), or another stable identity.
        reason: why it was not counted.
        detail: what exactly was wrong, for people; never content.
        at: when it was set aside (UTC): append time of its message, or the writer's time.
        connection_id: the connection it belongs to, if known.
        client: the agent that sent it.
        session_id: the session it belongs to.
        record: the allow-listed part of the record; a Fragment is taken as the JSON object it is.
        count: the number of records it stands for, when there are several.
        size: size in bytes of a body or message that is not kept.
        sha256: hash of it, hex.

    """
    key = keys.join(*source)
    letter: dict[str, Any] = {
        "source": key.decode(), "reason": reason.value, "detail": detail[:MAX_DETAIL], "at": at, "record": {},
    }  # fmt: skip
    optional = {
        "connection_id": connection_id, "client": client, "session_id": session_id,
        "record": record, "count": count, "size": size, "sha256": sha256,
    }  # fmt: skip
    letter |= {name: value for name, value in optional.items() if value is not None}
    try:
        return key, orjson.dumps(letter, option=orjson.OPT_UTC_Z)
    except TypeError:
        # A record may contain anything a client can send, such as integers above 64 bits and texts that are not UTF-8.
        letter["detail"] = _plain(letter["detail"])
        if isinstance(record, Mapping):
            letter["record"] = orjson.Fragment(json.dumps(_plain(record)))
        return key, orjson.dumps(letter, option=orjson.OPT_UTC_Z)


def _plain(value: object) -> Any:
    """Return a value that every JSON reader accepts, as close to `value` as possible."""
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case Mapping():
            return {_plain(str(name)): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
    return _plain(str(value))
