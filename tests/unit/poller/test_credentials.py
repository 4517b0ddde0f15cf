"""API keys: the right one for each endpoint, rotated in place, never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystream.streams.poller.credentials import ApiKey, ApiKeys
from tallystream.streams.poller.errors import FailureReason, PollError


def test_missing_special_key_falls_back_to_the_api_key() -> None:
    tokens = ApiKeys({"api": ApiKey("sk-a"), "admin": ApiKey("sk-admin-b")})
    assert (tokens.get("api"), tokens.get("admin"), tokens.get("session")) == ("sk-a", "sk-admin-b", "sk-a")


def test_missing_key_error_names_the_required_key() -> None:
    with pytest.raises(PollError) as caught:
        ApiKeys({"admin": ApiKey("sk-admin-b")}).get("session")
    assert caught.value.why == FailureReason.TOKEN
    assert "TALLYSTREAM_OPENAI_SESSION_TOKEN" in caught.value.hint


def test_key_file_is_read_at_every_poll(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-one\n")
    tokens = ApiKeys({"api": ApiKey(file=file)})
    assert tokens.get("api") == "sk-one"
    file.write_text("sk-two\n")
    assert tokens.get("api") == "sk-two"
    assert tokens.scrub("was sk-one, is sk-two") == "was ***, is ***"


@pytest.mark.parametrize("text", ["", "two words", "schlüssel"])
def test_key_file_without_a_key_is_reported(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(PollError, match="does not contain exactly one key"):
        ApiKeys({"api": ApiKey(file=file)}).get("api")
    with pytest.raises(PollError, match="cannot be read"):
        ApiKeys({"api": ApiKey(file=tmp_path / "nope")}).get("api")


def test_error_messages_do_not_repeat_keys() -> None:
    tokens = ApiKeys({"api": ApiKey("secret-of-an-odd-shape")})
    assert tokens.get("api")
    said = tokens.scrub("Incorrect API key provided: sk-proj-abc***xyz; secret-of-an-odd-shape")
    assert said == "Incorrect API key provided: ***; ***"
    assert "secret" not in repr(ApiKey("secret")) + repr(tokens)
