"""Bills and telemetry for tests, in the form of the topics."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from tallystream.agents.pricing import Book, read_overlay
from tallystream.agents.reconciliation.days import Reconciliation
from tallystream.schemas import exact, keys
from tallystream.schemas.openai import OpenAIRecord, PollCursor, digest
from tallystream.schemas.usage import TOKEN_COUNTS

DAY = "2026-11-21"
QUERY = "0123456789abcdef"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def record(
    resource: str,
    day: str,
    rows: list[dict[str, Any]],
    polled: str = "2026-11-24T12:00:00Z",
    *,
    hour: int | None = None,
) -> OpenAIRecord:
    """Return a record of a day, or of one of its hours."""
    start = at(f"{day}T{hour or 0:02}:00:00Z")
    packed, places = exact.pack(rows)
    return OpenAIRecord(
        resource=resource,
        query=QUERY,
        bucket=day if hour is None else f"{start:%Y-%m-%dT%H:%M:%SZ}",
        starts_at=start,
        ends_at=start + (timedelta(days=1) if hour is None else timedelta(hours=1)),
        polled_at=at(polled),
        digest=digest(rows),
        rows=packed,
        decimals=places,
    )


def cursor(resource: str, settled: str, polled: str) -> PollCursor:
    return PollCursor(
        resource=resource, query=QUERY, first=at("2026-11-01T00:00:00Z"), settled=at(settled), polled_at=at(polled)
    )


def cost(
    line_item: str, value: str, quantity: int | None = None, *, project: str | None = None, key: str | None = None,
    currency: str = "usd",
) -> dict[str, Any]:  # fmt: skip
    """Return a row of OpenAI's costs."""
    return {
        "object": "organization.costs.result",
        "amount": {"value": value, "currency": currency},
        "line_item": line_item,
        "project_id": project,
        "api_key_id": key,
        "quantity": quantity,
        "quantity_unit": None if quantity is None else "tokens",
    }


def row(
    connection: str, hour: str, model: str, cost_usd: str | None, *, provider: str = "openai",
    tier: str | None = "default", session: str = "s", version: int = 1, **counts: object,
) -> tuple[bytes, bytes]:  # fmt: skip
    """Return a row of `cost.session-hours` with one bucket."""
    bucket: dict[str, Any] = dict.fromkeys(TOKEN_COUNTS, 0) | counts
    bucket |= {"model": model, "service_tier": tier, "speed": None, "cost_usd": cost_usd, "requests": 1}
    document = {
        "connection_id": connection, "client": "codex", "provider": provider, "session_id": session, "hour": hour,
        "version": [0, version], "duplicates": 0, "buckets": [bucket],
    }  # fmt: skip
    return keys.join(connection, session, hour), orjson.dumps(document)


def take(view: Reconciliation, positions: int = 100) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the changed statements by provider, scope and day; every one must add up."""
    out = {}
    for key, value in view.take(positions):
        statement = orjson.loads(value)
        out[statement["provider"], statement["scope"], statement["day"]] = statement
        assert key == keys.join(statement["provider"], statement["scope"], statement["day"])
    return out


def book(tmp_path: Any, text: str) -> Book:
    """Return the book with private prices before it."""
    path = tmp_path / "prices.toml"
    path.write_text(text)
    return Book(read_overlay(path))
