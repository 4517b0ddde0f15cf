"""Connections: ids, states, and when they last sent data."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from tallystream.schemas.connections import Activity, Connection, IngestKey, Signal, hash_secret
from tallystream.streams.connections.registry import (
    Issued,
    Listing,
    fold_activity,
    new_ingest_id,
    old_until,
    state_of,
)

NOW = datetime(2026, 11, 21, 14, tzinfo=UTC)


def connection(*keys: IngestKey, revoked_at: datetime | None = None) -> Connection:
    return Connection(
        connection_id="codex-1a2b", provider="codex", name="laptop", created_at=NOW, ingest=list(keys),
        revoked_at=revoked_at,
    )  # fmt: skip


def activity(gateway: str, signal: Signal, minutes: int, requests: int) -> bytes:
    one = Activity(
        connection_id="codex-1a2b", signal=signal, gateway=gateway, requests=requests, records=requests * 10,
        last_synced_at=NOW + timedelta(minutes=minutes),
    )  # fmt: skip
    return one.model_dump_json().encode()


def test_ingest_ids_are_22_random_base62_characters() -> None:
    made = {new_ingest_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"[0-9A-Za-z]{22}", one) for one in made)


def test_activity_of_gateways_is_added_up_with_the_newest_time() -> None:
    found = fold_activity([activity("g1", "logs", 5, 2), activity("g2", "logs", 3, 7), b"junk"])
    logs = found["codex-1a2b"]["logs"]
    assert (logs.last_synced_at, logs.requests, logs.records) == (NOW + timedelta(minutes=5), 9, 90)
    assert set(found["codex-1a2b"]) == {"logs"}


def test_connection_states_follow_revocation_and_rotation() -> None:
    new, old = IngestKey(sha256="a" * 64), IngestKey(sha256="b" * 64, expires_at=NOW + timedelta(days=7))
    assert state_of(connection(new), NOW) == "active"
    assert state_of(connection(new, old), NOW) == "rotating"
    assert old_until(connection(new, old), NOW) == old.expires_at
    assert state_of(connection(new, old), NOW + timedelta(days=8)) == "active"
    assert state_of(connection(new, revoked_at=NOW), NOW) == "revoked"


def test_connection_is_found_by_its_secret() -> None:
    one = connection(IngestKey(sha256=hash_secret("the-secret-of-this-one")))
    listing = Listing({one.connection_id: one})
    assert listing.by_ingest_id("the-secret-of-this-one") is one
    assert listing.by_ingest_id("another-secret-000000") is None


def test_secrets_are_not_in_a_repr() -> None:
    assert "s3cret" not in repr(Issued(connection(), "s3cret-ingest", "s3cret-bearer"))
