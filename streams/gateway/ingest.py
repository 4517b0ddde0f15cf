"""A body becomes Kafka messages: usage and dead letters for logs, a count for metrics and traces."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tallystream.schemas import keys, packing
from tallystream.schemas.clients import LogsResult, Pack, Rejected, normalise_logs
from tallystream.schemas.connections import Signal
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import InvalidBody, Reason
from tallystream.schemas.otlp import Encoding, detect_signal, inspect
from tallystream.streams.gateway.errors import Undecodable
from tallystream.streams.gateway.message import DEAD_LETTER_SCHEMA, USAGE_SCHEMA, Message
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import Clock, utc

THREAD_BYTES = 4 << 20
"""A larger body is decoded in a thread. A megabyte takes 1.5 ms, and two threads that want the GIL take far longer."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a body held. `logs` is None for metrics and traces."""

    signal: Signal
    records: int
    logs: LogsResult | None


async def decode(body: bytes, encoding: Encoding, signal: Signal | None) -> Decoded:
    """Decode a body, in a thread when it is large.

    Raises:
        Undecodable: it is not what the request says it is.

    """
    try:
        if len(body) > THREAD_BYTES:
            return await asyncio.to_thread(_decode, body, encoding, signal)
        return _decode(body, encoding, signal)
    except InvalidBody as exc:
        raise Undecodable(f"{exc.message}; {exc.hint}" if exc.hint else exc.message) from None


def _decode(body: bytes, encoding: Encoding, signal: Signal | None) -> Decoded:
    if signal is None:
        signal = detect_signal(body, encoding)
    if signal == "logs":
        logs = normalise_logs(body, encoding)
        return Decoded(signal, logs.records, logs)
    return Decoded(signal, inspect(body, encoding, signal), None)


def digest_of(raw: bytes) -> str:
    """Return the SHA-256 of a body as sent: by it the dead letters of a body sent again repeat themselves."""
    return hashlib.sha256(raw).hexdigest()


class Messages:
    """Builds messages for the topics of one deployment. `user` stands in for user names."""

    def __init__(self, topics: Topics, user: Callable[[str], str], clock: Clock) -> None:
        self._topics = topics
        self._usage = topics.usage.name
        self._deadletters = topics.deadletters.name
        self.user = user
        self._clock = clock

    def already_named(self) -> Messages:
        """Return a builder for packs whose user names have been replaced before."""
        return Messages(self._topics, lambda user: user, self._clock)

    def usage(self, packs: list[Pack], connection_id: str) -> list[Message]:
        """Return the packs as messages."""
        return [
            Message(self._usage, key, value, USAGE_SCHEMA)
            for pack in packs
            for key, value in packing.messages(pack, connection_id, self.user)
        ]

    def rejected(self, rejected: list[Rejected], digest: str, connection_id: str | None) -> list[Message]:
        """Return the records that did not count as dead letters. A body sent again makes the same keys."""
        return [
            self.dead_letter(
                _source(connection_id, digest, record.index),
                record.reason,
                record.detail,
                connection_id=connection_id,
                client=record.client,
                session_id=record.session_id,
                record=record.record,
            )
            for record in rejected
        ]

    def undecodable(self, detail: str, size: int, digest: str, connection_id: str | None) -> Message:
        """Return the dead letter of a whole body: its size, hash and what was wrong, nothing of it."""
        return self.dead_letter(
            _source(connection_id, digest, 0),
            Reason.UNDECODABLE,
            detail,
            connection_id=connection_id,
            size=size,
            sha256=digest,
        )

    def dead_letter(self, source: str, reason: Reason, detail: str, **fields: Any) -> Message:
        """Return any dead letter."""
        letter = DeadLetter(source=source, reason=reason, detail=detail, at=utc(self._clock.now_ns()), **fields)
        value = letter.model_dump_json(exclude_none=True).encode()
        return Message(self._deadletters, source.encode(), value, DEAD_LETTER_SCHEMA)


def _source(connection_id: str | None, digest: str, index: int) -> str:
    """Return a dead letter's key. It names the connection: two may send the same body, and each letter is kept."""
    return keys.join("gateway", connection_id or "-", digest[:16], str(index)).decode()
