"""User names are replaced by stable pseudonyms that cannot be reversed without the key."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.components.gateway import user_names
from tallystream.schemas.errors import UnfitError, UsageError
from tallystream.settings.settings import Settings
from tallystream.streams.gateway.pseudonyms import own_key, pseudonyms


@given(st.text(min_size=1), st.binary(min_size=1, max_size=100))
def test_pseudonym_depends_on_name_and_key(name: str, key: bytes) -> None:
    one = pseudonyms(key)(name)
    assert one == pseudonyms(key)(name)
    assert len(one) == 18
    assert one.startswith("u_")
    assert set(one[2:]) <= set("0123456789abcdef")
    assert pseudonyms(key + b"!")(name) != one


def test_local_key_is_created_once_and_readable_only_by_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "data" / "user.key"
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: own_key(path), range(16)))
    assert len(keys) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["user.key"]


@pytest.mark.parametrize("content", ["", "not hex", "abcd"])
def test_damaged_key_prevents_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "user.key"
    path.write_text(content)
    with pytest.raises(UnfitError):
        own_key(path)


def test_cluster_needs_a_user_key_or_an_opt_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALLYSTREAM_USER_KEY", raising=False)
    with pytest.raises(UsageError, match="user names"):
        user_names(Settings(data_dir=tmp_path, kafka="kafka:9092"))
    named = user_names(Settings(data_dir=tmp_path, kafka="kafka:9092", user_names=True))
    assert named("ada@example.com") == "ada@example.com"
    monkeypatch.setenv("TALLYSTREAM_USER_KEY", "shared")
    assert user_names(Settings(data_dir=tmp_path, kafka="kafka:9092"))("ada") == pseudonyms(b"shared")("ada")


def test_single_machine_uses_its_own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALLYSTREAM_USER_KEY", raising=False)
    settings = Settings(data_dir=tmp_path, kafka=None)
    assert (
        user_names(settings)("ada") == user_names(settings)("ada") == pseudonyms(own_key(tmp_path / "user.key"))("ada")
    )
