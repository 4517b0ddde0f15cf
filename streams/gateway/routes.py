"""Parses request paths: which accept telemetry, and their provider, ingest id and signal.

/api/v1/public/ingest/otel/{provider}/{ingestId}/v1/{logs|metrics|traces}   what `connections create` prints
/api/v1/public/ingest/otel/{provider}/{ingestId}                            the base URL, posted to verbatim
/v1/{logs|metrics|traces}  and  /                                           with the header x-tallystream-connection

Exporters build paths from users' settings, and users write base URLs with a trailing slash, or the URL of one signal as
a base URL. So extra or missing slashes are ignored, and of `/v1/logs/v1/traces` the last signal counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, get_args

from tallystream.schemas.connections import Provider, hash_secret
from tallystream.schemas.ingest import INGEST_PATH
from tallystream.streams.gateway.errors import RequestRefusedError

PROVIDERS: tuple[str, ...] = get_args(Provider)
SIGNALS: Final = ("logs", "metrics", "traces")
MAX_ID: Final = 128
"""Maximum length of an ingest id; generated ones have 22 characters."""
_BASE_PARTS: Final = INGEST_PATH.strip("/").split("/")
_CACHED_PATH: Final = 160
_MEANT: Final = {"log": "logs", "metric": "metrics", "trac": "traces", "span": "traces", "event": "logs"}


@dataclass(frozen=True, slots=True)
class RouteTarget:
    """A parsed path. `signal` None: the body determines it. `provider` None: the id came in the header."""

    provider: str | None
    ingest_sha256: str | None
    """Hash of the ingest id: it is computed once for a path that comes again and again."""
    signal: str | None


def parse(path: str) -> RouteTarget:
    """Parse a decoded path.

    Raises:
        RequestRefusedError: 404, the path is unknown; the message has the path that was probably meant, without the
            ingest id.

    """
    # The paths of known connections come again and again; a long path must not be kept.
    return _cached(path) if len(path) <= _CACHED_PATH else _parsed(path)


def _parsed(path: str) -> RouteTarget:
    parts = [part for part in path.split("/") if part]
    if parts[: len(_BASE_PARTS)] == _BASE_PARTS:
        return _ingest(parts[len(_BASE_PARTS) :])
    return RouteTarget(None, None, _signal(parts, ""))


_cached = lru_cache(maxsize=4_096)(_parsed)


def _ingest(parts: list[str]) -> RouteTarget:
    provider, ingest_id, *rest = [*parts, "", ""] if len(parts) < 2 else parts
    if provider not in PROVIDERS:
        raise RequestRefusedError(404, f"unknown provider in the path: use {', '.join(PROVIDERS)}")
    rest = [part for part in rest if part]
    if not ingest_id or len(ingest_id) > MAX_ID or (ingest_id == "v1" and len(rest) == 1):
        raise RequestRefusedError(404, f"the path has no ingest id: {INGEST_PATH}{provider}/{{ingestId}}/v1/logs")
    return RouteTarget(provider, hash_secret(ingest_id), _signal(rest, f"{INGEST_PATH}{provider}/{{ingestId}}"))


def _signal(parts: list[str], base: str) -> str | None:
    """Return the signal at the end of a path, None without one; raises what `parse` raises."""
    version, signals = parts[::2], parts[1::2]
    if len(version) == len(signals) and set(version) <= {"v1"} and set(signals) <= set(SIGNALS):
        return signals[-1] if signals else None
    last = parts[-1].lower()
    meant = next((signal for part, signal in _MEANT.items() if part in last), None)
    if meant is None:
        ends = ", ".join(f"{base}/v1/{signal}" for signal in SIGNALS)
        raise RequestRefusedError(404, f"the path does not end in a signal: telemetry goes to {ends}")
    raise RequestRefusedError(404, f"the path does not end in a signal: {meant} go to {base}/v1/{meant}")
