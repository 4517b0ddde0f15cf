"""State of an older version is read completely by this one, without recovery from scratch.

`tests/fixtures/state-v1` was written once, by the first version with this format, and is never written again. A new
format gets a folder of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.session_hours import Shelf

from tallystream.agents.session_cost import hour_state, state_rows
from tallystream.streams.runtime.changelog import POSITION, WATERMARK, Position, Watermark, replay, reserved

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


def nothing_else(_key: bytes) -> bytes | None:
    """A state of this format needs no other rows."""
    return None


def changelog(name: str) -> list[tuple[bytes, bytes | None]]:
    """Return the records of a fixture: a JSON list of hex pairs."""
    pairs = json.loads((FIXTURES / name / "changelog.json").read_text())
    return [(bytes.fromhex(key), None if value is None else bytes.fromhex(value)) for key, value in pairs]


@pytest.fixture(params=["state-v1"])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_older_state_is_read_and_written_back_unchanged(folder: str) -> None:
    expected = json.loads((FIXTURES / folder / "expected.json").read_text())["states"]
    seen = set()
    for key, value in changelog(folder):
        if reserved(key) or value is None:
            continue
        seen.add(key.decode())
        state = state_rows.load(key, value, nothing_else)
        want = expected[key.decode()]
        for bucket in want["row"]["buckets"]:
            bucket.setdefault("inconsistent", 0)  # a sum that the older version did not have
        assert json.loads(hour_state.to_row(key, state)) == want["row"]
        assert [f"{ident:016x}" for ident in state.ids] == want["ids"]
        newest = max(want["newest"])
        assert (state.version, state.ids.newest, state.ids.floor) == (want["version"], newest, want["floor"])
        assert state_rows.version_of(value) == want["version"]
        assert json.loads(state_rows.public_row(key, value, nothing_else)) == want["row"]
        shelf = Shelf()
        shelf.put(key, state)
        back = shelf.get(key)
        assert (list(back.ids), back.ids.floor) == (list(state.ids), state.ids.floor)
        assert hour_state.to_row(key, back) == hour_state.to_row(key, state)
    assert seen == expected.keys()


def test_older_changelog_recovers_the_same_positions_and_watermarks(folder: str) -> None:
    expected = json.loads((FIXTURES / folder / "expected.json").read_text())
    replayed = replay(changelog(folder), nothing_else, state_rows.version_of, set())
    assert (replayed.zombies, replayed.unknown) == (0, 0)
    position, closed = replayed.rows[POSITION], replayed.rows[WATERMARK]
    assert position is not None
    assert closed is not None
    assert Position.decode(position) == Position(*expected["position"])
    value, since = Watermark.decode(closed)
    assert [value.decode(), since] == expected["closed"]
    kept = {key.decode() for key, value in replayed.rows.items() if value is not None and not reserved(key)}
    assert kept == set(expected["kept"])
