"""Authenticates requests by their ingest id, provider, and the connection's bearer secret if it has one.

Ids and secrets are hashed on arrival, and only hashes are looked up, compared or kept in quarantine. Looking up the
hash of a 128-bit random id is not vulnerable to timing attacks; the bearer secret is compared in constant time.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from tallystream.schemas.connections import Connection, hash_secret
from tallystream.schemas.ingest import CONNECTION_HEADER
from tallystream.streams.gateway.connections.cache import Grant, Registry
from tallystream.streams.gateway.errors import RequestRefusedError
from tallystream.streams.gateway.repeated import said_once
from tallystream.streams.gateway.routes import RouteTarget
from tallystream.streams.service.clock import Clock, utc

_NO_TIME = datetime.min.replace(tzinfo=UTC)
"""Where no end of validity is known, the time of the request decides nothing."""
_BEARER = {"WWW-Authenticate": 'Bearer realm="tallystream"'}


class Credentials(NamedTuple):
    """The hashed credentials of a request. `provider` is "" when the path does not name one."""

    ingest_sha256: str
    provider: str
    bearer_sha256: str | None


@dataclass(frozen=True, slots=True)
class Undetermined:
    """These credentials cannot be checked now: Kafka is unavailable and the cache does not know them."""

    credentials: Credentials


def credentials(target: RouteTarget, headers_id: str | None, authorization: str | None) -> Credentials:
    """Return the credentials of a request.

    Raises:
        RequestRefusedError: 401, the request has none.

    """
    ingest_sha256 = target.ingest_sha256 or (hash_secret(said_once(headers_id)) if headers_id else None)
    if ingest_sha256 is None:
        raise RequestRefusedError(
            401, f"no ingest id: use the URL that `connections create` printed, or the header {CONNECTION_HEADER}"
        )
    bearer = None
    if authorization is not None:
        # OTEL_EXPORTER_OTLP_HEADERS is percent-encoded, which not every exporter decodes
        scheme, _, secret = said_once(authorization).replace("%20", " ", 1).partition(" ")
        if scheme.lower() == "bearer":
            bearer = hash_secret(secret.strip())
    return Credentials(ingest_sha256, target.provider or "", bearer)


class Authenticator:
    """Checks credentials against the registry."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    def known(self, shown: Credentials) -> Connection | None:
        """Return the connection of credentials that are known, None if `admit` must be asked; raises as it does."""
        grant = self._registry.find(shown.ingest_sha256)
        return authorize(grant, shown, _NO_TIME) if grant is not None and grant.lasts else None

    async def admit(self, shown: Credentials) -> Connection | Undetermined:
        """Return the connection of the credentials; refreshes the registry once when the id is unknown.

        Raises:
            RequestRefusedError: 404 (unknown connection, or another provider's) or 401 (its bearer secret is missing or
                wrong).

        """
        grant = self._registry.find(shown.ingest_sha256)
        if grant is None:
            if not await self._registry.refresh():
                return Undetermined(shown)
            grant = self._registry.find(shown.ingest_sha256)
        at = _NO_TIME if grant is None or grant.lasts else utc(self._clock.now_ns())
        return authorize(grant, shown, at)


def authorize(grant: Grant | None, shown: Credentials, at: datetime) -> Connection:
    """Return the connection if the credentials were valid at the time of the request.

    Raises:
        RequestRefusedError: as `Authenticator.admit`.

    """
    if grant is None:
        raise RequestRefusedError(404, "unknown ingest id: `tallystream connections list` shows the connections")
    connection = grant.connection
    if connection.revoked_at is not None and connection.revoked_at <= at:
        raise RequestRefusedError(404, "this connection has been revoked")
    if grant.expires_at is not None and grant.expires_at <= at:
        raise RequestRefusedError(404, "this ingest id was rotated and its grace period is over: use the new one")
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
