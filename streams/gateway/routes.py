"""Which paths take telemetry, and what they say about it.

/api/v1/public/ingest/otel/{provider}/{ingestId}/v1/{logs|metrics|traces}   what `connections create` prints
/api/v1/public/ingest/otel/{provider}/{ingestId}                            the base URL, posted to verbatim
/v1/{logs|metrics|traces}  and  /                                           with the header x-tallystream-connection
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from tallystream.schemas.connections import Provider
from tallystream.schemas.ingest import INGEST_PATH
from tallystream.streams.gateway.errors import RequestRefusedError

PROVIDERS: tuple[str, ...] = get_args(Provider)
SIGNALS = ("logs", "metrics", "traces")
MAX_ID = 128
"""Longest ingest id looked at; ours have 22 characters."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes. `signal` None: the body tells. `provider` None: the id came in the header."""

    provider: str | None
    ingest_id: str | None
    signal: str | None


def parse(path: str) -> Target | None:
    """Return what a decoded path says, None when it is none of ours. Trailing slashes are tolerated.

    Raises:
        RequestRefusedError: 404, the path is almost right; says what is wrong, without the ingest id.

    """
    trimmed = path.rstrip("/")
    if trimmed.startswith(INGEST_PATH):
        return _ingest(trimmed[len(INGEST_PATH) :].split("/"))
    if not trimmed:
        return Target(None, None, None)
    if trimmed.startswith("/v1/") and trimmed[4:] in SIGNALS:
        return Target(None, None, trimmed[4:])
    return None


def _ingest(parts: list[str]) -> Target:
    provider, ingest_id, *rest = parts if len(parts) > 1 else (parts[0], "")
    if provider not in PROVIDERS:
        raise RequestRefusedError(404, f"unknown provider in the path: use {', '.join(PROVIDERS)}")
    if not ingest_id or len(ingest_id) > MAX_ID:
        raise RequestRefusedError(404, f"the path has no ingest id: {INGEST_PATH}{provider}/{{ingestId}}/v1/logs")
    if not rest:
        return Target(provider, ingest_id, None)
    if len(rest) == 2 and rest[0] == "v1" and rest[1] in SIGNALS:
        return Target(provider, ingest_id, rest[1])
    raise RequestRefusedError(404, "unknown signal in the path: it ends in /v1/logs, /v1/metrics or /v1/traces")
