"""Which paths the gateway accepts, and the errors for similar ones."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.schemas.connections import hash_secret
from tallystream.schemas.ingest import INGEST_PATH
from tallystream.streams.gateway.errors import RequestRefusedError
from tallystream.streams.gateway.routes import MAX_ID, RouteTarget, parse

ID = "Zq3v0000000000000000AB"
HASH = hash_secret(ID)


@pytest.mark.parametrize("provider", ["codex", "claude", "gemini"])
@pytest.mark.parametrize("signal", ["logs", "metrics", "traces"])
@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_three_url_forms_are_recognised(provider: str, signal: str, slashes: str) -> None:
    assert parse(f"{INGEST_PATH}{provider}/{ID}/v1/{signal}{slashes}") == RouteTarget(provider, HASH, signal)
    assert parse(f"{INGEST_PATH}{provider}/{ID}{slashes}") == RouteTarget(provider, HASH, None)
    assert parse(f"/v1/{signal}{slashes}") == RouteTarget(None, None, signal)
    assert parse(slashes) == RouteTarget(None, None, None)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (f"{INGEST_PATH}nobody/{ID}/v1/logs", "provider"),
        (f"{INGEST_PATH}codex", "ingest id"),
        (f"{INGEST_PATH}codex//v1/logs", "ingest id"),
        (f"{INGEST_PATH}codex/{'x' * (MAX_ID + 1)}/v1/logs", "ingest id"),
        (f"{INGEST_PATH}codex/{ID}/v1/profiles", "signal"),
        (f"{INGEST_PATH}codex/{ID}/v2/logs", "signal"),
        (f"{INGEST_PATH}codex/{ID}/v1/logs/more", "signal"),
    ],
)
def test_wrong_paths_are_explained_without_the_secret(path: str, says: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        parse(path)
    assert refused.value.status == 404
    assert says in refused.value.message
    assert ID not in refused.value.message


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/profiles", "/v1/logs, /v1/metrics, /v1/traces"),
        ("/v1", "/v1/logs, /v1/metrics, /v1/traces"),
        ("/admin", "/v1/logs, /v1/metrics, /v1/traces"),
        ("/api/v1/public/ingest", "/v1/logs, /v1/metrics, /v1/traces"),
        ("/v1/log", "logs go to /v1/logs"),
        ("/logs", "logs go to /v1/logs"),
        ("/V1/Traces", "traces go to /v1/traces"),
        ("/otlp/v1/metrics", "metrics go to /v1/metrics"),
        ("/v1/spans", "traces go to /v1/traces"),
        (f"{INGEST_PATH}codex/{ID}/logs", f"logs go to {INGEST_PATH}codex/{{ingestId}}/v1/logs"),
        (f"{INGEST_PATH}codex/{ID}/v1/trace/", f"traces go to {INGEST_PATH}codex/{{ingestId}}/v1/traces"),
    ],
)
def test_wrong_path_suggests_the_right_one(path: str, meant: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        parse(path)
    assert refused.value.status == 404
    assert meant in refused.value.message


@pytest.mark.parametrize("base", ["", f"{INGEST_PATH}codex/{ID}"])
@pytest.mark.parametrize(
    ("end", "signal"),
    [
        ("//v1/logs", "logs"),
        ("/v1//logs/", "logs"),
        ("/v1/logs/v1/logs", "logs"),
        ("/v1/logs/v1/traces", "traces"),
        ("/v1/logs//v1/metrics/", "metrics"),
        ("//", None),
    ],
)
def test_urls_built_by_exporters_are_accepted(base: str, end: str, signal: str | None) -> None:
    assert (
        parse(base + end)
        == parse(f"/{base}{end}")
        == RouteTarget("codex" if base else None, HASH if base else None, signal)
    )


@given(st.text(max_size=200))
def test_any_path_is_handled_without_an_error(text: str) -> None:
    for path in (text, f"/{text}", INGEST_PATH + text, f"{INGEST_PATH}codex/{text}"):
        with suppress(RequestRefusedError):
            target = parse(path)
            assert target.signal in (None, "logs", "metrics", "traces")
