"""Where a request goes that was let in: to Kafka under its connection, or into quarantine until it is authorized."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from tallystream.schemas.connections import Connection, Quota
from tallystream.schemas.otlp import LIMITS, Limits
from tallystream.streams.gateway.connections.activity import ActivityLog
from tallystream.streams.gateway.delivery.group_commit import Delivery
from tallystream.streams.gateway.ingest import Decoded, Messages
from tallystream.streams.gateway.message import Message
from tallystream.streams.gateway.metrics import Metrics


class Destination(Protocol):
    """Takes what a body held. `build` is the work, which may be done in a thread; `accept` keeps the promise."""

    provider: str
    """For metrics: whose connection it is, `unknown` when that is not known."""
    limits: Limits
    """What one body may hold."""
    key: str
    """Whose turn it takes, and whose quota."""
    quota: Quota | None
    """Of its own, None where the default holds."""
    share: int
    """By how much a body must be smaller than one of a known connection."""

    def build(self, decoded: Decoded, digest: str) -> Sequence[Message] | bytes:
        """Return what `accept` needs. Touches nothing that another thread may change."""
        ...

    async def accept(self, decoded: Decoded, built: Sequence[Message] | bytes) -> None:
        """Return once it is durable.

        Raises:
            NotDurableError: the client must be told to send it again.

        """
        ...

    async def undecodable(self, detail: str, size: int, digest: str) -> None:
        """Keep that there was a body that could not be decoded, durably; raises as `accept`."""
        ...


class ConnectionDestination:
    """Kafka, under a connection that is known."""

    limits = LIMITS
    share = 1

    def __init__(
        self,
        connection: Connection,
        delivery: Delivery,
        messages: Messages,
        activity: ActivityLog,
        metrics: Metrics,
    ) -> None:
        self._connection = connection
        self._delivery = delivery
        self._messages = messages
        self._activity = activity
        self._metrics = metrics
        self.provider: str = connection.provider
        self.key = connection.connection_id
        self.quota = connection.quota

    def build(self, decoded: Decoded, digest: str) -> Sequence[Message]:
        """Return the messages: usage, sightings of calls, and dead letters."""
        if decoded.logs is None or decoded.is_empty:
            return ()
        connection_id = self._connection.connection_id
        usage = self._messages.usage(decoded.logs.packs, connection_id)
        usage += self._messages.calls(decoded.sightings, connection_id)
        return usage + self._messages.rejected(decoded.logs.rejected, digest, connection_id)

    async def accept(self, decoded: Decoded, built: Sequence[Message] | bytes) -> None:
        """Return once Kafka or the spool has the messages."""
        assert not isinstance(built, bytes)
        await self._delivery.deliver(built)
        if decoded.logs is not None and decoded.logs.packs:
            packs = decoded.logs.packs
            self._metrics.events.labels(self.provider).inc(sum(len(pack.events) for pack in packs))
            newest = max(pack.events[-1]["occurred_at"] for pack in packs)
            self._metrics.event_to_durable.observe(max(0.0, (time.time_ns() - newest) / 1e9))
        self._activity.note(self._connection.connection_id, decoded.signal, decoded.records)

    async def undecodable(self, detail: str, size: int, digest: str) -> None:
        """Keep the dead letter of a whole body."""
        letter = self._messages.undecodable(detail, size, digest, self._connection.connection_id)
        await self._delivery.deliver([letter])
