"""Where a fleet sends its telemetry."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tallystream.schemas.errors import UsageError
from tallystream.schemas.ingest import CONNECTION_HEADER

_SIGNALS = ("logs", "metrics", "traces")


@dataclass(frozen=True)
class SimulationTarget:
    """An OTLP/HTTP base URL and the headers every request carries. Both may hold a secret, so neither is ever shown."""

    base: str = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    def url(self, signal: str) -> str:
        """Return where bodies of a signal are posted."""
        return f"{self.base}/v1/{signal}"

    @property
    def where(self) -> str:
        """What may be shown: scheme, host and port."""
        parts = urlsplit(self.base)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def target(endpoint: str, ingest_id: str | None = None) -> SimulationTarget:
    """Return the target of a base URL or of any of its three signal URLs; an ingest id goes into the header.

    Raises:
        UsageError: the endpoint is not a valid http(s) URL.

    """
    try:
        parts = urlsplit(endpoint.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            "the endpoint is not a valid http URL", "take base_url or logs_url of `tallystream connections create`"
        )
    path = parts.path.rstrip("/")
    for signal in _SIGNALS:
        path = path.removesuffix(f"/v1/{signal}")
    headers = {} if ingest_id is None else {CONNECTION_HEADER: ingest_id}
    return SimulationTarget(f"{parts.scheme}://{parts.netloc}{path}", headers)
