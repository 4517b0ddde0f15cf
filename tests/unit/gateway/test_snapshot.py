"""The registry's snapshot on disk: complete or ignored, and never an obstacle."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.gateway import INGEST_ID, connection

from tallystream.streams.gateway.connections import snapshot


def test_snapshot_is_read_back_and_contains_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "connections.json"
    snapshot.save(path, "t.connections", "cluster", [connection("codex", "first")])
    snapshot.save(path, "t.connections", "cluster", [connection(), connection("claude", "other")])
    found = snapshot.load(path, "t.connections")
    assert found is not None
    assert (found.cluster_id, found.connections) == ("cluster", [connection(), connection("claude", "other")])
    assert INGEST_ID not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["connections.json"]


def test_snapshot_of_another_deployment_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "connections.json"
    snapshot.save(path, "a.connections", "cluster", [connection()])
    assert snapshot.load(path, "b.connections") is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"topic": "t.connections"}', b"\xff\xfe"])
def test_damaged_snapshot_is_ignored(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "connections.json"
    path.write_bytes(content)
    assert snapshot.load(path, "t.connections") is None
    assert snapshot.load(tmp_path / "nothing.json", "t.connections") is None


def test_failed_snapshot_keeps_the_previous_one(tmp_path: Path) -> None:
    path = tmp_path / "connections.json"
    snapshot.save(path, "t.connections", "cluster", [connection()])
    with pytest.raises(OSError, match="connections"):
        snapshot.save(tmp_path / "missing" / "connections.json", "t.connections", "cluster", [])
    found = snapshot.load(path, "t.connections")
    assert found is not None
    assert found.connections == [connection()]
