"""Keeps the small compacted topics in memory: the connections, and when each of them last sent."""

from __future__ import annotations

from collections.abc import Iterable

import orjson
import structlog
from pydantic import ValidationError

from tallystream.exporter.labels import MAX_CONNECTIONS, MAX_LENGTH
from tallystream.schemas import keys
from tallystream.schemas.connections import Activity, Connection
from tallystream.streams.kafka.follower import FollowedBatch

log = structlog.get_logger()


class Registers:
    """The content of `connections` and `activity`."""

    def __init__(self, connections_topic: str, activity_topic: str) -> None:
        self._connections_topic = connections_topic
        self._activity_topic = activity_topic
        self._connections: dict[bytes, tuple[str, str, str, bool]] = {}
        self._activity: dict[bytes, tuple[str, str, float]] = {}

    def apply(self, batches: Iterable[FollowedBatch]) -> None:
        """Apply records; unreadable ones are skipped."""
        for batch in batches:
            for record in batch.records:
                try:
                    self._take(batch.topic, record.key or b"", record.value)
                except (ValidationError, ValueError) as exc:
                    log.warning("unreadable_record", topic=batch.topic, offset=record.offset, error=type(exc).__name__)

    def _take(self, topic: str, key: bytes, value: bytes | None) -> None:
        if topic == self._connections_topic:
            if value is None:
                self._connections.pop(key, None)
            else:
                one = Connection.model_validate(orjson.loads(value))
                self._connections[key] = (
                    one.connection_id, one.provider, one.name[:MAX_LENGTH], one.revoked_at is not None,
                )  # fmt: skip
        elif topic == self._activity_topic:
            if value is None:
                self._activity.pop(key, None)
            else:
                activity = Activity.model_validate(orjson.loads(value))
                connection, signal, _ = keys.split(key)
                self._activity[key] = (connection, signal, activity.last_synced_at.timestamp())

    @property
    def connections(self) -> list[tuple[str, str, str, bool]]:
        """Return (connection, provider, name, revoked) of at most MAX_CONNECTIONS."""
        return list(self._connections.values())[:MAX_CONNECTIONS]

    @property
    def last_synced(self) -> dict[tuple[str, str], float]:
        """Return when a connection's signal was last accepted by any gateway, in seconds since the epoch."""
        newest: dict[tuple[str, str], float] = {}
        shown = {connection for connection, *_ in self.connections}
        for connection, signal, at in self._activity.values():
            if connection in shown:
                newest[connection, signal] = max(at, newest.get((connection, signal), 0.0))
        return newest
