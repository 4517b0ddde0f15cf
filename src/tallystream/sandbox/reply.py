"""A handler's answer, before it is encoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SandboxCall:
    """A request that fits the contract."""

    operation: str
    """`GET /organization/costs`"""
    path: dict[str, str]
    query: dict[str, Any]
    body: Any
    user_agent: str
    now: float
    """Seconds since the epoch."""
    size: int = 0
    """Bytes of the body."""


@dataclass(frozen=True)
class Reply:
    """`body` is JSON, in which a Decimal is an exact number."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
