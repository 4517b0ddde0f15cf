"""The descriptions of dead letters."""

from __future__ import annotations

from tallystream.cli.commands.deadletters import parse
from tallystream.schemas.errors import Reason
from tallystream.streams.deadletters.reasons import WORDS


def test_every_reason_is_explained_with_a_next_step() -> None:
    assert set(WORDS) == set(Reason)
    assert all(meaning.endswith(".") and step.endswith(".") for meaning, step in WORDS.values())


def test_invalid_dead_letters_are_counted_separately() -> None:
    good = b'{"source":"usage|0|1|0","reason":"too_late","detail":"d","at":"2026-11-21T14:00:00.5Z"}'
    letters, unreadable = parse([good, b"no json", b'{"source":"x"}'])
    assert unreadable == 2
    assert [(letter["source"], letter["at"]) for letter in letters] == [("usage|0|1|0", "2026-11-21T14:00:00Z")]
