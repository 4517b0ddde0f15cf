"""Turns a body into Kafka messages: usage, sightings of model calls, links, witnesses and dead letters; and counts
records for metrics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tallystream.schemas import calls, links, packing, witness
from tallystream.schemas.clients import LogsResult, Pack, Rejected, normalise_logs
from tallystream.schemas.clients.genai import SightingPack, read_sightings
from tallystream.schemas.clients.links import FoundLink, session_links, span_links
from tallystream.schemas.clients.witnesses import Witnesses, WitnessPack, read_metrics
from tallystream.schemas.connections import Signal
from tallystream.schemas.dead_letter_builder import dead_letter
from tallystream.schemas.errors import Reason
from tallystream.schemas.otlp import LIMITS, Encoding, Limits, detect_signal, inspect
from tallystream.streams.gateway.message import (
    CALLS_SCHEMA,
    DEAD_LETTER_SCHEMA,
    LINK_SCHEMA,
    USAGE_SCHEMA,
    WITNESS_SCHEMA,
    Message,
)
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import Clock, utc


@dataclass(frozen=True, slots=True)
class Decoded:
    """The contents of a body. `logs` is None for metrics; for traces it has the rejected spans."""

    signal: Signal
    records: int
    logs: LogsResult | None
    sightings: list[SightingPack] = field(default_factory=list)
    """Sightings of model calls in spans."""
    links: list[FoundLink] = field(default_factory=list)
    """Which session started which."""
    witnesses: list[WitnessPack] = field(default_factory=list)
    """What metrics and spans say of usage that is counted from logs."""
    left_out: int = 0
    """Statements of witnesses that could not be read, or were too many."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to store."""
        counted = self.logs is not None and (self.logs.packs or self.logs.rejected)
        return not (counted or self.sightings or self.links or self.witnesses)


def decode(
    body: bytes, encoding: Encoding, signal: Signal | None, limits: Limits = LIMITS, *, witnessed: bool = True
) -> Decoded:
    """Decode a body. `witnessed`: also read what metrics and spans say of usage that is counted from logs.

    Raises:
        InvalidBodyError: it does not match the request's headers, or exceeds a limit.

    """
    if signal is None:
        signal = detect_signal(body, encoding)
    if signal == "logs":
        logs = normalise_logs(body, encoding, limits)
        return Decoded(signal, logs.records, logs, links=session_links(body, encoding, limits))
    if signal == "traces":
        found = Witnesses()
        spans = read_sightings(body, encoding, limits, found if witnessed else None)
        logs = LogsResult(spans.records, [], spans.rejected)
        links = span_links(body, encoding, limits)
        return Decoded(signal, spans.records, logs, spans.packs, links, list(found.packs.values()), found.left_out)
    if witnessed:
        records, found = read_metrics(body, encoding, limits)
        return Decoded(signal, records, None, witnesses=list(found.packs.values()), left_out=found.left_out)
    return Decoded(signal, inspect(body, encoding, signal, limits), None)


def digest_of(raw: bytes) -> str:
    """Return the SHA-256 of a body as sent. It gives the dead letters of a body that is sent again the same keys."""
    return hashlib.sha256(raw).hexdigest()


class Messages:
    """Builds messages for the topics of one deployment. `user` maps user names to their replacements."""

    def __init__(self, topics: Topics, user: Callable[[str], str], clock: Clock) -> None:
        self._topics = topics
        self._usage = topics.usage.name
        self._calls = topics.calls.name
        self._links = topics.session_links.name
        self._witness = topics.witness.name
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

    def calls(self, packs: list[SightingPack], connection_id: str) -> list[Message]:
        """Return sightings of model calls as messages."""
        return [
            Message(self._calls, key, value, CALLS_SCHEMA)
            for pack in packs
            for key, value in calls.messages(pack, connection_id, self.user)
        ]

    def links(self, found: list[FoundLink], connection_id: str) -> list[Message]:
        """Return the links between sessions as messages."""
        return [Message(self._links, *links.message(link, connection_id), LINK_SCHEMA) for link in found]

    def witnesses(self, packs: list[WitnessPack], connection_id: str) -> list[Message]:
        """Return what metrics and spans say as messages."""
        return [
            Message(self._witness, key, value, WITNESS_SCHEMA)
            for pack in packs
            for key, value in witness.messages(pack, connection_id)
        ]

    def rejected(self, rejected: list[Rejected], digest: str, connection_id: str | None) -> list[Message]:
        """Return dead letters for the rejected records. A body that is sent again produces the same keys."""
        return [
            self.dead_letter(
                ("gateway", connection_id or "-", digest[:16], str(record.index)),
                record.reason,
                record.detail,
                connection_id=connection_id,
                client=record.client,
                session_id=record.session_id,
                record=record.record | self._attribution(record),
                count=1 + record.folded if record.folded else None,
            )
            for record in rejected
        ]

    def _attribution(self, record: Rejected) -> dict[str, dict[str, str]]:
        whose = record.attribution
        if "user" in whose:
            whose = whose | {"user": self.user(whose["user"])}
        return {"attribution": whose} if whose else {}

    def undecodable(self, detail: str, size: int, digest: str, connection_id: str | None) -> Message:
        """Return the dead letter of a whole body: its size, its hash and the error, but none of its content."""
        return self.dead_letter(
            ("gateway", connection_id or "-", digest[:16], "0"),
            Reason.UNDECODABLE,
            detail,
            connection_id=connection_id,
            size=size,
            sha256=digest,
        )

    def dead_letter(self, source: tuple[str, ...], reason: Reason, detail: str, **fields: Any) -> Message:
        """Return any dead letter; see `schemas.dead_letter_builder`.

        Its source includes the connection if it is known, because two connections may send the same body and each needs
        a letter.
        """
        key, value = dead_letter(source, reason, detail, utc(self._clock.now_ns()), **fields)
        return Message(self._deadletters, key, value, DEAD_LETTER_SCHEMA)
