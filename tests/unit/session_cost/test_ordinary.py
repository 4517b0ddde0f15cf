"""Messages counted as a whole give what counting event by event gives, whatever they contain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.stepped_fold import NOW_MS, Message, Stepped, session_cost

from tallystream.agents.session_cost import ordinary
from tallystream.agents.session_cost.known_sessions import MAX_KNOWN, KnownSessions
from tallystream.schemas import keys
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.usage import MAX_EVENT_TOKENS
from tallystream.streams.runtime.changelog import Watermark

HOUR = 3_600_000
COUNTS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "tool")

NUMBERS = [-1, True, 1.5, "7", None, [], [1], 2**53, 2**39, 2**40, 300_000, 2**63, 2**64 - 1]


@st.composite
def ordinary_events(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Events of one hour and model, with ids so few that copies occur, within a message too."""
    hours_ago = draw(st.sampled_from([0, 0, 0, 1, 2, 3, 200]))
    model = draw(st.sampled_from(["gpt-5.4", "gpt-5.4", "gpt-5-codex", "a model of nobody"]))
    made = []
    for _ in range(draw(st.integers(1, 6))):
        output = draw(st.integers(0, 900))
        counts = {**dict.fromkeys(COUNTS, 0), "output": output, "reasoning": draw(st.integers(0, output))}
        counts |= draw(st.dictionaries(st.sampled_from(COUNTS[:4] + COUNTS[6:]), st.integers(0, 200_000), max_size=3))
        at = (NOW_MS - hours_ago * HOUR) * 10**6 + draw(st.integers(0, 1000))
        made.append({"event_id": f"{draw(st.integers(1, 60)):016x}", "occurred_at": at, "model": model, **counts})
    return made


@st.composite
def oddities(draw: st.DrawFn, event: dict[str, Any]) -> Any:
    """Return an event with something that is not ordinary."""
    number = st.sampled_from(NUMBERS)
    match draw(st.integers(0, 7)):
        case 0:
            return event | {draw(st.sampled_from(COUNTS)): draw(number)}
        case 1:
            return event | {"reasoning": event["output"] + 1}
        case 2:
            return event | {"occurred_at": draw(number)}
        case 3:
            return event | {"occurred_at": (NOW_MS + draw(st.sampled_from([-1, 1, 24, -169])) * HOUR) * 10**6}
        case 4:
            return event | draw(st.sampled_from([{"service_tier": "flex"}, {"prompt": "secret"}, {"model": "gpt-5"}]))
        case 5:
            return {name: value for name, value in event.items() if name != draw(st.sampled_from(["tool", "model"]))}
        case 6:
            idents = ["00", "0" * 15 + "G", "0" * 15 + "A", "\uff10" * 16, 7, "0_0" + "1" * 13, None]
            return event | draw(
                st.one_of(
                    st.sampled_from(idents).map(lambda ident: {"event_id": ident}),
                    st.sampled_from([7, None, [], "m" * 300, "é" * 100]).map(lambda model: {"model": model}),
                )
            )
        case _:
            return draw(st.sampled_from([None, [], "event", {}, 5]))


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """A message that is ordinary, or differs from one in one event."""
    client = draw(st.sampled_from(["codex", "codex", "codex", "gemini", "claude"]))
    made: list[Any] = draw(ordinary_events())
    if draw(st.integers(0, 2)) == 0:
        place = draw(st.integers(0, len(made) - 1))
        made[place] = draw(oddities(made[place]))
    return {
        "connection_id": "codex-7f3a",
        "client": client,
        "provider": "openai",
        "session_id": draw(st.sampled_from(["s", "s", "t|%"])) + client,
        "attribution": draw(
            st.sampled_from([{"team": "core"}] * 3 + [{"team": "core", "user": ""}, {}, {"team": None}])
        ),
        "events": made,
    }


def folded(values: Sequence[tuple[bytes, bytes]], groups: Sequence[int], watermark: Watermark | None) -> Stepped:
    """Fold the messages, some at a time, each of these in a group."""
    one = Stepped(0, session_cost())
    one.recover(watermark)
    made = [Message(offset, value, key) for offset, (key, value) in enumerate(values)]
    for size in groups:
        if made:
            one.fold(made[:size])
            one.commit()
            made = made[size:]
    if made:
        one.fold(made)
        one.commit()
    return one


def letters(one: Stepped) -> list[dict[str, Any]]:
    """Return the dead letters without size and hash of the message."""
    return [letter.model_dump(exclude={"size", "sha256"}) for letter in one.letters]


@examples(300)
@given(
    st.lists(messages(), min_size=1, max_size=15),
    st.lists(st.integers(1, 5), max_size=12),
    st.sampled_from([None, Watermark(b"2026-11-21T13:00:00Z", -1)]),
)
def test_message_counts_as_its_events_do_one_by_one(
    batches: list[dict[str, Any]], groups: list[int], watermark: Watermark | None
) -> None:
    named = [(keys.join(batch["connection_id"], batch["session_id"]), batch) for batch in batches]
    # With spaces behind the commas a message is not recognised, and is parsed and counted event by event.
    spaced = folded([(key, json.dumps(batch).encode()) for key, batch in named], groups, watermark)
    one = folded([(key, orjson.dumps(batch)) for key, batch in named], groups, watermark)
    assert one.stored() == spaced.stored()
    assert one.rows == spaced.rows
    assert one.hours == spaced.hours
    assert letters(one) == letters(spaced)


def message(session: str, *idents: int, **change: Any) -> tuple[bytes, bytes]:
    made = [
        {"event_id": f"{ident:016x}", "occurred_at": NOW_MS * 10**6, "model": "gpt-5.4", **dict.fromkeys(COUNTS, 5)}
        for ident in idents
    ]
    head = {"connection_id": "codex-7f3a", "client": "codex", "provider": "openai", "session_id": session}
    return keys.join("codex-7f3a", session), orjson.dumps(head | {"attribution": {}, "events": made} | change)


@pytest.mark.parametrize("size", [1, 2, 30])
def test_messages_are_ordinary(size: int) -> None:
    """Otherwise the property above would compare one way of counting with itself."""
    one = Stepped(0, session_cost())
    derived = one.fold_of._derived[0]
    key, value = message("s", *range(2, 2 + size))
    found = derived.known.split(key, value)
    assert found is not None
    record = Message(1, value, key)
    assert ordinary.count(one.partition, derived, record, *found, one.fold_of._book, one.fold_of._state) == (size, 0, 0)


@pytest.mark.parametrize(
    "value",
    [
        b'{"events":[],"a":{"events":[]}}',
        b'{,"events":[]}',
        b'{"connection_id":"codex-7f3a","events":[]}',
        b'{"a":1,"events":[]',
        b'[1,"events":[]}',
        b'"x","events":[]}',
        b'{"events":[{"x":1,"events":[]}]}',
        message("other", 1)[1],
        message("s", 1)[1] + b"}",
        message("s", 1)[1] + b" ",
        message("s", 1, secret=1)[1],
        None,
    ],
)
def test_what_is_not_a_head_and_a_list_is_parsed_as_a_whole(value: bytes | None) -> None:
    known = KnownSessions()
    assert known.split(message("s", 1)[0], value) is None
    assert known.split(*message("s", 1)) is not None
    assert known.split(message("s", 1)[0], value) is None


def test_memory_of_sessions_is_bounded() -> None:
    known = KnownSessions()
    for number in range(MAX_KNOWN + 10):
        assert known.split(*message(f"s{number}", 1)) is not None
    assert len(known) <= MAX_KNOWN
    found = known.split(*message("s0", 1))
    assert found is not None
    assert found[0].head.session_id == "s0"


def test_refused_letter_of_an_ordinary_session_keeps_the_event() -> None:
    one = Stepped(0, session_cost())
    late = {"occurred_at": (NOW_MS - 200 * HOUR) * 10**6}
    key, value = message("s", 1)
    event = orjson.loads(value)["events"][0] | late
    one.fold([Message(0, value, key), Message(1, message("s", 2, events=[event])[1], key)])
    one.commit()
    (letter,) = one.letters
    assert isinstance(letter, DeadLetter)
    assert letter.record is not None
    assert letter.record["events"] == [event]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["occurred_at", "input_uncached", "reasoning", "tool"])
@pytest.mark.parametrize("places", [(0,), (1,), (0, 1)])
def test_columns_hold_nothing_but_small_whole_numbers(number: Any, name: str, places: tuple[int, ...]) -> None:
    ident = iter((1, 2))
    events = [
        {"event_id": f"{next(ident):016x}", "occurred_at": 7, "model": "m", **dict.fromkeys(COUNTS, 0), "output": 9}
        for _ in range(2)
    ]
    assert ordinary.columns(events) is not None
    for place in places:
        events[place][name] = number
    fits = type(number) is int and number >= 0
    if fits and name == "occurred_at":
        fits = number < 2**63
    elif fits:
        fits = len(places) * number + 18 < MAX_EVENT_TOKENS and (name != "reasoning" or number <= 9)
    assert (ordinary.columns(events) is not None) == fits
