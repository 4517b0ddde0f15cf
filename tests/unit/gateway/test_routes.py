"""Which paths are ours, and what is said about those that almost are."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.schemas.ingest import INGEST_PATH
from tallystream.streams.gateway.errors import RequestRefusedError
from tallystream.streams.gateway.routes import MAX_ID, Target, parse

ID = "Zq3v0000000000000000AB"


@pytest.mark.parametrize("provider", ["codex", "claude", "gemini"])
@pytest.mark.parametrize("signal", ["logs", "metrics", "traces"])
@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_the_three_forms(provider: str, signal: str, slashes: str) -> None:
    assert parse(f"{INGEST_PATH}{provider}/{ID}/v1/{signal}{slashes}") == Target(provider, ID, signal)
    assert parse(f"{INGEST_PATH}{provider}/{ID}{slashes}") == Target(provider, ID, None)
    assert parse(f"/v1/{signal}{slashes}") == Target(None, None, signal)
    assert parse(slashes) == Target(None, None, None)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (f"{INGEST_PATH}copilot/{ID}/v1/logs", "provider"),
        (f"{INGEST_PATH}codex", "ingest id"),
        (f"{INGEST_PATH}codex//v1/logs", "ingest id"),
        (f"{INGEST_PATH}codex/{'x' * (MAX_ID + 1)}/v1/logs", "ingest id"),
        (f"{INGEST_PATH}codex/{ID}/v1/profiles", "signal"),
        (f"{INGEST_PATH}codex/{ID}/v2/logs", "signal"),
        (f"{INGEST_PATH}codex/{ID}/v1/logs/more", "signal"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(path: str, says: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        parse(path)
    assert refused.value.status == 404
    assert says in refused.value.message
    assert ID not in refused.value.message


@pytest.mark.parametrize("path", ["/v1/profiles", "/v1", "/admin", "/api/v1/public/ingest", "/v1/logs/x"])
def test_other_paths_are_nobodys(path: str) -> None:
    assert parse(path) is None


@given(st.text(max_size=200))
def test_no_path_is_a_surprise(text: str) -> None:
    for path in (text, f"/{text}", INGEST_PATH + text, f"{INGEST_PATH}codex/{text}"):
        with suppress(RequestRefusedError):
            target = parse(path)
            assert target is None or target.signal in (None, "logs", "metrics", "traces")
