"""Which state belongs to the same deployment, and what happens to that of another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystream.streams.identity import Identity
from tallystream.streams.set_aside import FILE, aside, beside_of, claim_directory, set_aside

OURS = Identity("cluster-a", "tally", {"tally.usage": "id-1", "tally.changelog": "id-2"})


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (Identity("cluster-b", "tally", OURS.topic_ids), "Kafka cluster cluster-b"),
        (Identity("cluster-a", "other", OURS.topic_ids), "prefix 'other'"),
        (Identity("cluster-a", "tally", {"tally.usage": "id-9"}), "deleted and created again"),
        (Identity("cluster-a", "tally", {"tally.gone": "id-3"}), "no longer exists"),
    ],
)
def test_state_of_another_deployment_is_recognised_with_a_reason(found: Identity, why: str) -> None:
    assert why in OURS.difference(found)
    assert not OURS.matches(found)


@pytest.mark.parametrize(
    "found",
    [
        OURS,
        Identity("cluster-a", "tally", {"tally.usage": "id-1"}),
        Identity("cluster-a", "tally", {"tally.usage": "", "tally.changelog": "id-2"}),
        Identity("cluster-a", "tally"),
    ],
)
def test_state_with_fewer_topics_or_without_ids_is_accepted(found: Identity) -> None:
    assert OURS.matches(found)


def test_state_without_identity_is_not_accepted() -> None:
    assert not OURS.matches(None)


def test_saved_identity_is_read_back(tmp_path: Path) -> None:
    OURS.save(tmp_path / "deep" / FILE)

    assert Identity.load(tmp_path / "deep" / FILE) == OURS
    assert [one.name for one in (tmp_path / "deep").iterdir()] == [FILE]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 2}', b'{"format":1,"topic_ids":3}']
)
def test_unreadable_identity_file_names_no_deployment(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)

    assert Identity.load(tmp_path / FILE) is None
    assert Identity.load(tmp_path / "missing") is None


def test_directory_of_this_deployment_is_kept(tmp_path: Path) -> None:
    state = tmp_path / "store"

    assert not claim_directory(state, OURS)
    (state / "data").write_text("rows")

    assert claim_directory(state, OURS)
    assert (state / "data").read_text() == "rows"
    assert aside(tmp_path) == []


@pytest.mark.parametrize("marked", [True, False])
def test_directory_of_another_deployment_is_set_aside(tmp_path: Path, marked: bool) -> None:
    state = tmp_path / "store"
    state.mkdir()
    (state / "data").write_text("theirs")
    if marked:
        Identity("cluster-b", "tally").save(state / FILE)
    times = []

    assert not claim_directory(state, OURS, counted=lambda: times.append(1))

    (moved,) = aside(tmp_path)
    assert (moved / "data").read_text() == "theirs"
    assert [one.name for one in state.iterdir()] == [FILE]
    assert claim_directory(state, OURS)
    assert times == [1]


def test_identity_file_moves_with_the_set_aside_file(tmp_path: Path) -> None:
    state = tmp_path / "snapshot.json"
    state.write_text("theirs")
    OURS.save(beside_of(state))

    moved = set_aside(state, "a test")

    assert moved is not None
    assert moved.read_text() == "theirs"
    assert Identity.load(beside_of(moved)) == OURS
    assert aside(tmp_path) == [moved]
    assert set_aside(state, "again") is None
