"""The destination of an admitted request: Kafka under its connection, or the quarantine until it can be authorized."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from tallystream.schemas.connections import Connection, Quota
from tallystream.schemas.otlp import LIMITS, Limits
from tallystream.streams.gateway.connections.activity import ActivityLog
from tallystream.streams.gateway.delivery.group_commit import Delivery
from tallystream.streams.gateway.ingest import Decoded, Messages, digest_of
from tallystream.streams.gateway.message import Message
from tallystream.streams.gateway.metrics import Metrics


class Destination(Protocol):
    """Stores the contents of a body. `build` does the CPU work and may run in a thread; `accept` makes the result
    durable.
    """

    provider: str
    """Provider of the connection for metrics, `unknown` when it is not known."""
    limits: Limits
    """Limits of one body."""
    light_limits: Limits
    """Limits of a body that is decoded at once and not in a thread."""
    key: str
    """Identifies the sender for turns and quotas."""
    quota: Quota | None
    """The connection's own quota, None when the default applies."""
    share: int
    """Factor by which the limits are smaller than those of a known connection."""

    def build(self, decoded: Decoded, raw: bytes) -> Sequence[Message] | bytes:
        """Return the input of `accept` for a body that was sent as `raw`. It must not access state that another thread
        may change.
        """
        ...

    async def accept(self, decoded: Decoded, built: Sequence[Message] | bytes) -> None:
        """Return once it is durable.

        Raises:
            NotDurableError: the client must send it again.

        """
        ...

    async def undecodable(self, detail: str, size: int, digest: str) -> None:
        """Durably store a dead letter for a body that could not be decoded; raises as `accept`."""
        ...


class ConnectionDestination:
    """Kafka, under a known connection."""

    limits = LIMITS
    light_limits = LIMITS.light()
    share = 1

    def __init__(
        self,
        connection: Connection,
        delivery: Delivery,
        messages: Messages,
        activity: ActivityLog,
        metrics: Metrics,
    ) -> None:
        self.connection = connection
        self._delivery = delivery
        self._messages = messages
        self._activity = activity
        self._metrics = metrics
        self.provider: str = connection.provider
        self.key = connection.connection_id
        self.quota = connection.quota

    def build(self, decoded: Decoded, raw: bytes) -> Sequence[Message]:
        """Return the messages: usage, sightings of calls, links between sessions, witnesses, and dead letters."""
        if decoded.is_empty:
            return ()
        connection_id = self.connection.connection_id
        witnesses = self._messages.witnesses(decoded.witnesses, connection_id) if decoded.witnesses else []
        if decoded.logs is None:
            return witnesses
        usage = self._messages.usage(decoded.logs.packs, connection_id) + witnesses
        if decoded.sightings:
            usage += self._messages.calls(decoded.sightings, connection_id)
        if decoded.links:
            usage += self._messages.links(decoded.links, connection_id)
        if decoded.logs.rejected:
            usage += self._messages.rejected(decoded.logs.rejected, digest_of(raw), connection_id)
        return usage

    async def accept(self, decoded: Decoded, built: Sequence[Message] | bytes) -> None:
        """Store the messages; returns once Kafka or the spool has them."""
        assert not isinstance(built, bytes)
        await self._delivery.deliver(built)
        if decoded.logs is not None and decoded.logs.packs:
            packs = decoded.logs.packs
            newest = max([pack.events[-1]["occurred_at"] for pack in packs])
            seconds = max(0.0, (time.time_ns() - newest) / 1e9)
            self._metrics.durable(self.provider, sum([len(pack.events) for pack in packs]), seconds)
        self._activity.note(self.connection.connection_id, decoded.signal, decoded.records)

    async def undecodable(self, detail: str, size: int, digest: str) -> None:
        """Store the dead letter of a whole body."""
        letter = self._messages.undecodable(detail, size, digest, self.connection.connection_id)
        await self._delivery.deliver([letter])
