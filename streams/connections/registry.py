"""The registry of connections, which says who may send: reads and writes the compacted topic `connections`.

The ingest id is a secret: it is returned once, when it is created, and only its SHA-256 is stored. An id is never
issued twice, not even after its connection was revoked.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import get_args

from aiokafka.errors import KafkaError
from pydantic import ValidationError

from tallystream.schemas import keys
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.connections import Activity, Connection, IngestKey, Provider, Quota, Signal, hash_secret
from tallystream.schemas.errors import UsageError
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.producer import SINGLE, producing
from tallystream.streams.kafka.reader import latest
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import Clock, SystemClock, utc

PROVIDERS: tuple[str, ...] = get_args(Provider)
SIGNALS: tuple[Signal, ...] = get_args(Signal)
INGEST_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
"""Format of an ingest id: long enough not to be guessed, and without characters that a URL would have to escape."""
MAX_NAME = 100
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def new_ingest_id() -> str:
    """Return 128 random bits as 22 base62 characters."""
    number, digits = secrets.randbits(128), ""
    for _ in range(22):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits


@dataclass(frozen=True)
class Issued:
    """A connection with the secrets just created for it, which are not stored anywhere."""

    connection: Connection
    ingest_id: str = field(repr=False)
    bearer: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Synced:
    """The activity of one connection on one signal, over all gateways."""

    last_synced_at: datetime
    requests: int
    records: int


@dataclass(frozen=True)
class Listing:
    """`unreadable` are the keys of records that this version cannot read; the rest is complete without them."""

    connections: Mapping[str, Connection]
    unreadable: tuple[str, ...] = ()

    def get(self, connection_id: str) -> Connection:
        """Return a connection.

        Raises:
            UsageError: the registry has no connection of that id.

        """
        found = self.connections.get(connection_id)
        if found is None:
            raise UsageError(f"unknown connection {connection_id!r}", "`tallystream connections list` shows them")
        return found

    def by_ingest_id(self, ingest_id: str) -> Connection | None:
        """Return the connection that this ingest id was issued for, expired and revoked ones too."""
        wanted = hash_secret(ingest_id)
        for connection in self.connections.values():
            if any(key.sha256 == wanted for key in connection.ingest):
                return connection
        return None


class Connections:
    """The registry of one deployment. Every method reads the topic again.

    Raises, from every method:
        UnreachableError: Kafka did not answer within `timeout` seconds.
    """

    def __init__(
        self, kafka: KafkaSettings, topics: Topics, *, clock: Clock | None = None, timeout: float = 30.0
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._clock = clock or SystemClock()
        self._timeout = timeout

    async def list(self) -> Listing:
        """Return all connections by id, revoked ones too."""
        values = await latest(self._kafka, self._topics.connections.name, stall=self._timeout)
        connections: dict[str, Connection] = {}
        unreadable: list[str] = []
        for key, value in values.items():
            try:
                connection = Connection.model_validate_json(value)
                connections[connection.connection_id] = connection
            except ValidationError:
                unreadable.append(key.decode(errors="replace"))
        return Listing(dict(sorted(connections.items(), key=lambda item: item[1].created_at)), tuple(unreadable))

    async def synced(self) -> dict[str, dict[Signal, Synced]]:
        """Return when each connection last sent, by connection and signal, added up over the gateways' separate
        counts.
        """
        values = await latest(self._kafka, self._topics.activity.name, stall=self._timeout)
        return fold_activity(values.values())

    async def create(
        self,
        provider: str,
        *,
        name: str | None = None,
        ingest_id: str | None = None,
        bearer: bool = False,
        quota: Quota | None = None,
    ) -> Issued:
        """Create a connection and return it with its secrets once Kafka has it.

        Raises:
            UsageError: unknown provider, invalid name, invalid or already issued ingest id.

        """
        if provider not in PROVIDERS:
            raise UsageError(f"unknown provider {provider!r}", f"providers: {', '.join(PROVIDERS)}")
        label = provider if name is None else name.strip()
        if not label or len(label) > MAX_NAME or not label.isprintable():
            raise UsageError(f"a name is 1 to {MAX_NAME} printable characters", "try --name laptop")
        if ingest_id is not None and not INGEST_ID.fullmatch(ingest_id):
            raise UsageError(
                "an ingest id has 16 to 64 characters from A-Z a-z 0-9 _ -",
                "omit --id to have one generated: it is a secret and should be random",
            )
        await ensure(self._kafka, (self._topics.connections,), self._timeout)
        listing = await self.list()
        if ingest_id is not None and listing.by_ingest_id(ingest_id) is not None:
            raise UsageError("this ingest id has been issued before", "omit --id to have one generated")
        secret = ingest_id or new_ingest_id()
        token = new_ingest_id() if bearer else None
        connection = Connection.model_validate(
            {
                "connection_id": _new_id(provider, listing.connections),
                "provider": provider,
                "name": label,
                "created_at": utc(self._clock.now_ns()),
                "ingest": [IngestKey(sha256=hash_secret(secret))],
                "bearer_sha256": hash_secret(token) if token else None,
                "quota": quota,
            }
        )
        await self._write(connection)
        return Issued(connection, secret, token)

    async def rotate(self, connection_id: str, grace: timedelta) -> Issued:
        """Issue a new ingest id; the current one keeps working for `grace`. The bearer secret stays.

        Raises:
            UsageError: no such connection, or it is revoked.

        """
        now = utc(self._clock.now_ns())
        connection = (await self.list()).get(connection_id)
        if connection.revoked_at is not None:
            raise UsageError(
                f"{connection_id} was revoked on {connection.revoked_at:%Y-%m-%d}",
                f"`tallystream connections create {connection.provider}` makes a new one",
            )
        until = now + grace
        old = [key.model_copy(update={"expires_at": min(until, key.expires_at or until)}) for key in connection.ingest]
        secret = new_ingest_id()
        rotated = connection.model_copy(update={"ingest": [IngestKey(sha256=hash_secret(secret)), *old]})
        await self._write(rotated)
        return Issued(rotated, secret)

    async def revoke(self, connection_id: str) -> Connection:
        """Refuse the connection from now on; its rows are kept. Revoking it again has no effect.

        Raises:
            UsageError: no such connection.

        """
        connection = (await self.list()).get(connection_id)
        if connection.revoked_at is None:
            connection = connection.model_copy(update={"revoked_at": utc(self._clock.now_ns())})
            await self._write(connection)
        return connection

    async def _write(self, connection: Connection) -> None:
        """Write, and return once all in-sync replicas have it."""
        try:
            async with producing(self._kafka, replace(SINGLE, request_timeout=self._timeout)) as producer:
                await producer.send_and_wait(
                    self._topics.connections.name,
                    # gateways before 0.2 do not support quotas and refuse a connection with unknown fields
                    connection.model_dump_json(exclude={"quota"} if connection.quota is None else None).encode(),
                    key=keys.join(connection.connection_id),
                    headers=schema_of(Connection).headers,
                )
        except (KafkaError, OSError) as exc:
            hint = "run `tallystream connections list` before you try again: it may have been written"
            raise unreachable(self._kafka, exc, "take the connection", hint) from exc


def state_of(connection: Connection, now: datetime) -> str:
    """Return active, rotating (an old ingest id still works) or revoked."""
    if connection.revoked_at is not None:
        return "revoked"
    return "rotating" if old_until(connection, now) else "active"


def old_until(connection: Connection, now: datetime) -> datetime | None:
    """Return until when an old ingest id works, None if there is no old id that still works."""
    return max((key.expires_at for key in connection.ingest if key.expires_at and key.expires_at > now), default=None)


def fold_activity(values: Iterable[bytes]) -> dict[str, dict[Signal, Synced]]:
    """Combine the gateways' records: the newest time and the sums. Records that are not an Activity are skipped."""
    found: dict[str, dict[Signal, Synced]] = {}
    for value in values:
        try:
            one = Activity.model_validate_json(value)
        except ValidationError:
            continue
        signals = found.setdefault(one.connection_id, {})
        have = signals.get(one.signal)
        signals[one.signal] = Synced(
            max(one.last_synced_at, have.last_synced_at) if have else one.last_synced_at,
            one.requests + (have.requests if have else 0),
            one.records + (have.records if have else 0),
        )
    return found


def _new_id(provider: str, taken: Mapping[str, Connection]) -> str:
    """Return an unused `<provider>-<hex>`: four digits, or more as they run out."""
    for attempt in range(1000):
        connection_id = f"{provider}-{secrets.token_hex(2 + attempt // 20)}"
        if connection_id not in taken:
            return connection_id
    raise UsageError("all connection ids that were tried are in use", "try again")
