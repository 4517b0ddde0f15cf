"""How telemetry reaches a gateway: the path or the header that carries the ingest id."""

from __future__ import annotations

from typing import Final

INGEST_PATH: Final = "/api/v1/public/ingest/otel/"
"""`{provider}/{ingestId}` follows, and after it nothing, or `/v1/logs`, `/v1/metrics` or `/v1/traces`."""
CONNECTION_HEADER: Final = "x-tallystream-connection"
"""Carries the ingest id where the path does not: `/v1/logs` and the like, and gRPC."""
