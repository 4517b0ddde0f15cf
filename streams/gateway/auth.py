"""Authenticates requests: by their ingest id, provider, and the connection's bearer secret if it has one.

Ids and secrets are hashed on arrival, and only hashes are looked up, compared or kept in quarantine. A lookup by the
hash of a 128-bit random id gives an attacker's stopwatch nothing to work with; the bearer is compared in constant time.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime

from tallystream.schemas.connections import Connection, hash_secret
from tallystream.schemas.ingest import CONNECTION_HEADER
from tallystream.streams.gateway.connections.cache import Grant, Registry
from tallystream.streams.gateway.errors import RequestRefusedError
from tallystream.streams.gateway.routes import RouteTarget
from tallystream.streams.service.clock import Clock, utc

_BEARER = {"WWW-Authenticate": 'Bearer realm="tallystream"'}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows, hashed. `provider` "" when the path does not name one."""

    ingest_sha256: str
    provider: str
    bearer_sha256: str | None


@dataclass(frozen=True, slots=True)
class Undetermined:
    """Nobody can say now whether these credentials are good: Kafka is away and the cache does not know them."""

    credentials: Credentials


def credentials(target: RouteTarget, headers_id: str | None, authorization: str | None) -> Credentials:
    """Return the credentials of a request.

    Raises:
        RequestRefusedError: 401, there are none.

    """
    ingest_id = target.ingest_id or headers_id
    if not ingest_id:
        raise RequestRefusedError(
            401, f"no ingest id: use the URL that `connections create` printed, or the header {CONNECTION_HEADER}"
        )
    bearer = None
    if authorization is not None:
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() == "bearer":
            bearer = hash_secret(secret.strip())
    return Credentials(hash_secret(ingest_id), target.provider or "", bearer)


class Authenticator:
    """Authenticates credentials by the registry."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    async def admit(self, shown: Credentials) -> Connection | Undetermined:
        """Return the connection the credentials open; refreshes the registry once when the id is unknown.

        Raises:
            RequestRefusedError: 404 (no such connection, or another provider's) or 401 (its bearer secret is
                missing or wrong).

        """
        grant = self._registry.find(shown.ingest_sha256)
        if grant is None:
            if not await self._registry.refresh():
                return Undetermined(shown)
            grant = self._registry.find(shown.ingest_sha256)
        return authorize(grant, shown, utc(self._clock.now_ns()))


def authorize(grant: Grant | None, shown: Credentials, at: datetime) -> Connection:
    """Return the connection, by what was known of it and when the request came.

    Raises:
        RequestRefusedError: as `Authenticator.admit`.

    """
    if grant is None:
        raise RequestRefusedError(
            404, "this ingest id belongs to no connection: `tallystream connections list` shows them all"
        )
    connection = grant.connection
    if connection.revoked_at is not None and connection.revoked_at <= at:
        raise RequestRefusedError(404, "this connection has been revoked")
    if grant.expires_at is not None and grant.expires_at <= at:
        raise RequestRefusedError(404, "this ingest id was rotated and its grace is over: use the new one")
    if shown.provider and shown.provider != connection.provider:
        raise RequestRefusedError(
            404, f"this ingest id belongs to a {connection.provider} connection: correct the provider in the path"
        )
    if connection.bearer_sha256 is not None and not hmac.compare_digest(
        shown.bearer_sha256 or "", connection.bearer_sha256
    ):
        raise RequestRefusedError(
            401, "this connection needs its bearer secret in the header Authorization", headers=_BEARER
        )
    return connection
