"""Samples of records on disk: masked, and nobody else's to read."""

from __future__ import annotations

import json
import os
import stat
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tallystream.agents.port_sink.pipeline.masking import masked
from tallystream.agents.port_sink.pipeline.samples import Samples


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", "0123456789"),
        ("clientSecret", "x"),
        ("access_token", "x"),
        ("user", "ada"),
        ("email", "ada@example.com"),
        ("title", "by ada.lovelace+x@mail.example.com"),
        ("note", "export KEY=sk-ant-admin01-abc"),
        ("note", "Authorization: Bearer abcdefgh12"),
        ("url", "https://ada:hunter2@example.com/x"),
        ("note", "ghp_0123456789abcdefghijABCDEFGHIJ"),
    ],
)
def test_sensitive_values_in_samples_are_masked(name: str, value: str) -> None:
    (found,) = masked({"a": [{name: value}]})["a"]
    assert "***" in found[name]
    assert not any(word in json.dumps(found) for word in ("ada", "0123456789", "hunter2", "abc", "efgh"))


def test_values_that_mappings_need_are_kept_in_samples() -> None:
    record: dict[str, Any] = {
        "session_id": "01a200dc-de0b", "total_tokens": 12, "api_key_id": "key_1", "cost": Decimal("0.1"),
        "models": ["o3"], "attribution": {"team": "search", "repo": "acme/app"}, "token": None,
        "hour": "2026-11-21T13:00:00Z",
    }  # fmt: skip
    assert masked(record) == record


def test_sample_is_readable_only_by_its_owner(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        old = tmp_path / "samples" / "usage.json"
        old.parent.mkdir()
        old.write_text("{}")
        samples = Samples(tmp_path / "samples")
        samples.keep("/usage", [{"id": number, "email": "ada@example.com"} for number in range(9)])
        samples.keep("/usage", [{"id": "later"}])
    finally:
        os.umask(before)
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
    assert json.loads(old.read_text()) == [{"id": number, "email": "***"} for number in range(5)]


def test_samples_do_not_follow_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    (tmp_path / "session.json").symlink_to(tmp_path / "other")
    Samples(tmp_path).keep("session", [{"id": 1}])
    assert (tmp_path / "other").read_text() == "kept"
