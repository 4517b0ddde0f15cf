"""Splits usage messages into head and events. A head that was checked is recognised by its bytes from then on."""

from __future__ import annotations

from typing import Any

import orjson

from tallystream.agents.session_cost.counted import IDS_OF_COUNTS
from tallystream.agents.session_cost.errors import InvalidMessageError
from tallystream.agents.session_cost.parse import Head, parse_head
from tallystream.schemas.hours import hour_iso
from tallystream.schemas.usage import MAX_BYTES

MAX_KNOWN = 4096
"""Sessions of a partition that are remembered: about a kilobyte each."""
MAX_HOURS = 48
"""Keys of session-hours that are remembered for each."""
_EVENTS = b',"events":'


class KnownSession:
    """The head of a session's messages, checked once. `start` is all of a message before its list of events."""

    __slots__ = ("_hours", "head", "ids_of_counts", "key", "length", "start")

    def __init__(self, key: bytes, start: bytes, head: Head) -> None:
        self.key = key
        self.start = start
        self.length = len(start)
        self.head = head
        self.ids_of_counts = head.client in IDS_OF_COUNTS
        self._hours: dict[int, bytes] = {}

    def key_of(self, hour: int) -> bytes:
        """Return the key of a session-hour, the same object each time."""
        key = self._hours.get(hour)
        if key is None:
            if len(self._hours) > MAX_HOURS:
                self._hours.clear()
            key = self._hours[hour] = self.key + b"|" + hour_iso(hour).encode()
        return key


class KnownSessions:
    """Splits messages into head and events, and checks a head that is repeated byte by byte only once."""

    def __init__(self) -> None:
        self._known: dict[bytes, KnownSession] = {}

    def __len__(self) -> int:
        return len(self._known)

    def session(self, key: bytes | None, value: bytes | None) -> KnownSession | None:
        """Return the session of a key, whose first message `value` may be; None without a valid head."""
        known = None if key is None else self._known.get(key)
        if known is None and (found := self.split(key, value)) is not None:
            known = found[0]
        return known

    def split(self, key: bytes | None, value: bytes | None) -> tuple[KnownSession, Any] | None:
        """Return the session and the events, unchecked; None of a message that has to be parsed as a whole.

        What stands before `,"events":` and after it are parsed apart. Both are valid only if the whole is, and the
        whole is then the object of the former with these events.
        """
        if key is None or value is None or len(value) > MAX_BYTES or value[-1:] != b"}":
            return None
        known = self._known.get(key)
        try:
            if known is not None and value.startswith(known.start):
                return known, orjson.loads(value[known.length : -1])
            at = value.find(_EVENTS)
            if at < 0:
                return None
            message = orjson.loads(value[:at] + b"}")
            raw = orjson.loads(value[at + len(_EVENTS) : -1])
            if type(message) is not dict or "events" in message:
                return None
            head = parse_head(key, message)
        except (orjson.JSONDecodeError, InvalidMessageError):
            return None
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        known = self._known[key] = KnownSession(key, value[: at + len(_EVENTS)], head)
        return known, raw
