"""Recovery's reading of session-hours gives the hours that adding up decoded rows one by one gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.session_hours import Shelf
from tests.unit.session_cost.test_hour_state import ATTRIBUTIONS, Made, fold, made

from tallystream.agents.session_cost import hours_of_rows, plain_heads, state_rows
from tallystream.agents.session_cost.hour_state import State
from tallystream.agents.session_cost.hours import HourSums
from tallystream.agents.session_cost.parse import Event
from tallystream.schemas import keys
from tallystream.schemas.hours import hour_iso
from tallystream.streams.runtime.fold import Replacement

NAMES = ("codex", 'x,[["', "}", '}",', "],[", '"', "\\", "Zoë", ",1", "")
"""Texts that look like the parts of a head in JSON."""
texts = st.one_of(st.just("codex"), st.just("codex"), st.just("codex"), st.sampled_from(NAMES))


def one_by_one(p: int, replaced: Sequence[Replacement], read: Callable[[bytes], bytes | None]) -> dict[bytes, bytes]:
    """Return the rows of the partials, from states that are decoded as a whole."""
    hours, now = HourSums(p, read), {key: new for key, _, new in replaced if new is not None}

    def found(key: bytes) -> bytes | None:
        return now.get(key) or read(key)

    for key, old, new in replaced:
        if new is not None and state_rows.is_head(key):
            state = state_rows.load(key, new, found)
            before = {} if old is None else state_rows.load(key, old, found).carried
            hours.replace(key, state.buckets, before, state.version)
    return dict(hours.take_stored())


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Replacement], dict[bytes, bytes]]:
    """Draw the replacements of a few session-hours, some of which had a row before, and the rows before."""
    replaced: list[Replacement] = []
    store: dict[bytes, bytes] = {}
    for number in range(draw(st.integers(1, 8))):
        connection, hour = draw(st.sampled_from(("a", "a", "a", "b|%"))), draw(st.sampled_from((0, 0, 0, 1)))
        key = keys.join(connection, f"s{number}") + b"|" + hour_iso(498_000 + hour).encode()
        state, shelf = State(draw(texts), draw(texts)), Shelf()
        usual = draw(st.sampled_from((True, True, True, False)))
        versions = draw(st.lists(st.integers(0, 2**60), min_size=1, max_size=1 if usual else 2))
        for version in sorted(versions):
            store |= shelf.rows
            events: list[Made] = draw(st.lists(made(), min_size=usual, max_size=draw(st.sampled_from((1, 3, 20)))))
            for (ident, at, _, tier, speed, *counts), cost, attribution, late in events:
                kind = (draw(texts), None, None) if usual else (draw(texts), tier, speed)
                event: Event = (ident, at, *kind, *counts)  # type: ignore[assignment]
                fold(state, [(event, cost, ATTRIBUTIONS[1] if usual else attribution, late)])
            state.version = version
            shelf.put(key, state)
        replaced += [(name, store.get(name), row) for name, row in shelf.rows.items() if store.get(name) != row]
    return draw(st.permutations(replaced)), store


@examples(150)
@given(tables())
def test_same_hours_as_decoded_one_by_one(drawn: tuple[list[Replacement], dict[bytes, bytes]]) -> None:
    replaced, store = drawn
    assert dict(hours_of_rows.derive(3, replaced, store.get)) == one_by_one(3, replaced, store.get)


@examples(150)
@given(tables(), st.data())
def test_damaged_rows_are_read_alike_or_refused(
    drawn: tuple[list[Replacement], dict[bytes, bytes]], data: st.DataObject
) -> None:
    """A byte of a head is another one, or its end is missing: whatever still can be decoded says the same."""
    replaced, store = drawn
    heads = [at for at, (key, _, _) in enumerate(replaced) if state_rows.is_head(key)]
    assume(heads)
    at = data.draw(st.sampled_from(heads))
    key, old, raw = replaced[at]
    assert raw is not None
    place = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.one_of(st.sampled_from(b'"[],\\}0-'), st.integers(0, 255)))
    changed = raw[:place] + bytes([byte]) + raw[place + 1 :]
    replaced[at] = key, old, data.draw(st.sampled_from((changed, raw[:place])))
    try:
        wanted = one_by_one(3, replaced, store.get)
    except Exception:
        return
    assert dict(hours_of_rows.derive(3, replaced, store.get)) == wanted


def test_short_heads_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short way is taken: otherwise the properties above would compare the long one with itself."""
    state, shelf = State("codex", "openai"), Shelf()
    event = (1, 498_000 * 3_600_000_000_000, "o3", None, None, 1, 2, 0, 0, 3, 0, 0, None, 0, False)
    fold(state, [(event, 5, '{"team":"a}\\",[["}', False)])
    state.version = 7
    key = b"c|s|" + hour_iso(498_000).encode()
    shelf.put(key, state)
    replaced = [(key, None, shelf.rows[key])]
    wanted = one_by_one(3, replaced, shelf.rows.get)
    monkeypatch.setattr(state_rows, "load_buckets", pytest.fail)
    assert dict(hours_of_rows.derive(3, replaced, shelf.rows.get)) == wanted
    assert plain_heads.sort_out(replaced).others == []
