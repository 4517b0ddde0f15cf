"""The path and the header that carry the ingest id to a gateway."""

from __future__ import annotations

from typing import Final

INGEST_PATH: Final = "/api/v1/public/ingest/otel/"
"""Prefix of `{provider}/{ingestId}`, optionally followed by `/v1/logs`, `/v1/metrics` or `/v1/traces`."""
CONNECTION_HEADER: Final = "x-tallystream-connection"
"""Carries the ingest id when the path does not: for `/v1/logs` and the like, and for gRPC."""
