"""Authentication of requests: ids, rotation, revocation, providers, bearer secrets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.support.gateway import BEARER, INGEST_ID, NOW, connection

from tallystream.schemas.connections import Connection, IngestKey, hash_secret
from tallystream.streams.gateway.auth import Credentials, authorize, credentials
from tallystream.streams.gateway.connections.cache import Cache, Grant
from tallystream.streams.gateway.errors import RequestRefusedError
from tallystream.streams.gateway.routes import RouteTarget

HOUR = timedelta(hours=1)
BEARER_NEEDED: dict[str, Any] = {"bearer_sha256": hash_secret(BEARER)}


def ask(one: Connection, ingest_id: str = INGEST_ID, provider: str = "codex", bearer: str | None = None) -> Connection:
    cache = Cache()
    cache.apply(one.connection_id, one)
    shown = Credentials(hash_secret(ingest_id), provider, hash_secret(bearer) if bearer else None)
    return authorize(cache.find(shown.ingest_sha256), shown, NOW)


def test_ingest_id_of_a_connection_is_accepted() -> None:
    assert ask(connection()).connection_id == "codex-7f3a"
    assert ask(connection(), provider="").connection_id == "codex-7f3a"


def test_both_ids_work_after_a_rotation_until_the_old_one_expires() -> None:
    def rotated(expires: timedelta) -> Connection:
        old = IngestKey(sha256=hash_secret("old"), expires_at=NOW + expires)
        return connection(ingest=[old, IngestKey(sha256=hash_secret("new"))])

    assert ask(rotated(HOUR), "old").connection_id == ask(rotated(HOUR), "new").connection_id
    assert ask(rotated(-HOUR), "new").connection_id == "codex-7f3a"
    with pytest.raises(RequestRefusedError, match="rotated") as refused:
        ask(rotated(timedelta()), "old")
    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("fields", "asked", "status", "says"),
    [
        ({}, {"ingest_id": "guessed"}, 404, "unknown ingest id"),
        ({}, {"provider": "claude"}, 404, "codex connection"),
        ({"revoked_at": NOW - HOUR}, {}, 404, "revoked"),
        (BEARER_NEEDED, {}, 401, "bearer"),
        (BEARER_NEEDED, {"bearer": "wrong"}, 401, "bearer"),
        (BEARER_NEEDED, {"bearer": BEARER[:-1]}, 401, "bearer"),
    ],
)
def test_refusals_name_the_reason_and_no_secret(
    fields: dict[str, Any], asked: dict[str, Any], status: int, says: str
) -> None:
    with pytest.raises(RequestRefusedError, match=says) as refused:
        ask(connection(**fields), **asked)
    assert refused.value.status == status
    assert not any(secret in refused.value.message for secret in (INGEST_ID, "guessed", BEARER))
    assert ("WWW-Authenticate" in refused.value.headers) == (status == 401)


def test_correct_bearer_is_accepted() -> None:
    assert ask(connection(**BEARER_NEEDED), bearer=BEARER).connection_id == "codex-7f3a"


def test_bearer_may_be_percent_encoded_as_in_the_environment_of_an_exporter() -> None:
    target = RouteTarget(None, None, "logs")
    shown = [credentials(target, INGEST_ID, f"{scheme}{BEARER}") for scheme in ("Bearer ", "bearer%20")]
    assert shown[0] == shown[1]


def test_revocation_in_the_future_has_no_effect_yet() -> None:
    assert ask(connection(revoked_at=NOW + HOUR)).connection_id == "codex-7f3a"


def test_credentials_come_from_path_or_header_and_are_hashed() -> None:
    from_path = credentials(RouteTarget("codex", hash_secret(INGEST_ID), "logs"), None, f"Bearer  {BEARER}")
    assert from_path == Credentials(hash_secret(INGEST_ID), "codex", hash_secret(BEARER))
    assert credentials(RouteTarget(None, None, "logs"), INGEST_ID, "Basic eA==") == Credentials(
        hash_secret(INGEST_ID), "", None
    )
    for nothing in (None, ""):
        with pytest.raises(RequestRefusedError) as refused:
            credentials(RouteTarget(None, None, "logs"), nothing, None)
        assert refused.value.status == 401


def test_newest_record_replaces_a_connection_completely() -> None:
    cache = Cache()
    cache.apply("codex-7f3a", connection("codex", "first"))
    cache.apply("codex-7f3a", connection("codex", "second"))
    assert cache.find(hash_secret("first")) is None
    assert isinstance(cache.find(hash_secret("second")), Grant)
    cache.apply("codex-7f3a", None)
    assert cache.find(hash_secret("second")) is None
    assert len(cache) == 0


@pytest.mark.parametrize("between", [",", ", "])
def test_header_that_an_exporter_sends_twice_is_read_once(between: str) -> None:
    """Swift's and JavaScript's exporters append the configured headers to those that they have set already."""
    target = RouteTarget(None, None, "logs")
    once = credentials(target, INGEST_ID, f"Bearer {BEARER}")
    assert credentials(target, between.join([INGEST_ID] * 2), between.join([f"Bearer {BEARER}"] * 2)) == once
    assert credentials(target, f"{INGEST_ID}{between}other", f"Bearer {BEARER}{between}Bearer other") != once
