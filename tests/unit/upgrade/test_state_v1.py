"""State written by an older version is read by this one, to the last event id: nothing recovers from scratch.

`tests/fixtures/state-v1` was written once, by the version that first had this format, and is never written again; a
new format gets a folder of its own beside it, and this test another case. `python -m tests.unit.upgrade.write DIR`
writes one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tallystream.agents.session_cost import hour_state
from tallystream.streams.runtime.changelog import POSITION, WATERMARK, Position, Watermark, replay, reserved

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


def changelog(name: str) -> list[tuple[bytes, bytes | None]]:
    """Return the records of a fixture: a JSON list of hex pairs."""
    pairs = json.loads((FIXTURES / name / "changelog.json").read_text())
    return [(bytes.fromhex(key), None if value is None else bytes.fromhex(value)) for key, value in pairs]


@pytest.fixture(params=["state-v1"])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_state_is_read_and_written_back_unchanged(folder: str) -> None:
    expected = json.loads((FIXTURES / folder / "expected.json").read_text())["states"]
    seen = set()
    for key, value in changelog(folder):
        if reserved(key) or value is None:
            continue
        seen.add(key.decode())
        state = hour_state.load(value)
        want = expected[key.decode()]
        assert json.loads(hour_state.to_row(key, state)) == want["row"]
        assert [f"{ident:016x}" for ident in state.ids] == want["ids"]
        assert (state.version, state.newest, state.floor) == (want["version"], want["newest"], want["floor"])
        assert hour_state.version_of(value) == want["version"]
        assert hour_state.load(hour_state.dump(state)).ids == state.ids
    assert seen == expected.keys()


def test_the_changelog_recovers_to_the_same_positions_and_markers(folder: str) -> None:
    expected = json.loads((FIXTURES / folder / "expected.json").read_text())
    replayed = replay(changelog(folder), lambda _: None, hour_state.version_of, set())
    assert (replayed.zombies, replayed.unknown) == (0, 0)
    position, closed = replayed.rows[POSITION], replayed.rows[WATERMARK]
    assert position is not None
    assert closed is not None
    assert list(Position.decode(position)) == expected["position"]
    value, since = Watermark.decode(closed)
    assert [value.decode(), since] == expected["closed"]
    kept = {key.decode() for key, value in replayed.rows.items() if value is not None and not reserved(key)}
    assert kept == set(expected["kept"])
