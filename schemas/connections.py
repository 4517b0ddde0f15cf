"""Topics `connections` and `activity`: who may send telemetry, and when they last did."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tallystream.schemas.usage import Count

Provider = Literal[
    "codex", "claude", "gemini", "copilot", "vscode", "qwen", "opencode", "cline", "litellm", "collector", "genai"
]
Signal = Literal["logs", "metrics", "traces"]


def hash_secret(secret: str) -> str:
    """Return the hex SHA-256 of an ingest id or a bearer secret: only this hash is stored and looked up.

    A secret from a request may contain bytes that are not UTF-8, as surrogates: they are hashed as the original bytes.
    """
    return sha256(secret.encode(errors="surrogateescape")).hexdigest()


class IngestKey(BaseModel):
    """An ingest id that opens a connection. The id itself is shown once and never stored."""

    model_config = ConfigDict(extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    expires_at: datetime | None = None
    """Set by a rotation: the old id works until then."""


class Quota(BaseModel):
    """Limits of one connection. None: the gateway's setting applies; 0: unlimited."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: Count | None = None
    """Per second."""
    bytes: Count | None = None
    """Bytes of request bodies as sent (compressed), per second."""
    held_bytes: Count | None = None
    """Bytes of request bodies in progress at one time."""
    dead_letters: Count | None = None
    """Records and bodies that are not counted, per second."""


class Connection(BaseModel):
    """Value of a `connections` message; key `connection_id`."""

    model_config = ConfigDict(extra="forbid")

    connection_id: str
    """Public: it appears in keys, labels and rows."""
    provider: Provider
    name: str
    created_at: datetime
    ingest: list[IngestKey]
    bearer_sha256: str | None = None
    """When set, requests need `Authorization: Bearer` with the secret that has this hash."""
    revoked_at: datetime | None = None
    quota: Quota | None = None


class Activity(BaseModel):
    """Value of an `activity` message; key `connection_id|signal|gateway`. Absolute counts of one gateway process."""

    model_config = ConfigDict(extra="forbid")

    connection_id: str
    signal: Signal
    gateway: str
    last_synced_at: datetime
    """Processing time of the newest accepted request."""
    requests: Count
    records: Count
