"""Joining a stream of sightings: order, splits, repeats, late spans, restarts and torn groups change no total."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.otlp_spans import chat, sightings
from tests.unit.clients.test_genai_join import ID, OTHER, SEEDS, Fleet, agent, fleets, tokens, twin

from tallystream.agents.genai_calls import rows
from tallystream.agents.genai_calls.join_state import JoinState, Origin, Release
from tallystream.schemas.clients.genai import Sighting, normalise

HOLD, QUIET = 15_000, 600_000
ORIGIN = Origin("genai-1", {"team": "payments"})
T0 = 1_900_000_000_000
Message = tuple[int, list[Sighting]]
"""Append time and sightings; the offset is the index."""


class Stage:
    """The join as the agent runs it, with rows in a dict; `restart` rebuilds it from the rows."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.marked_days: set[int] = set()
        self.values: dict[bytes, list[Sighting]] = {}
        self.offset = -1
        self.released: dict[str, Release] = {}
        """The released calls by identity, each once, as the fold of `usage` keeps them."""
        self.state = self._state()

    def _state(self) -> JoinState:
        return JoinState(HOLD, QUIET, self._mark, self._is_marked)

    def _mark(self, mark: bytes) -> None:
        self.rows.update([rows.mark_row(self.state.now_ms, self.offset, mark)])
        self.marked_days.add(self.state.now_ms // rows.DAY_MS)

    def _is_marked(self, mark: bytes) -> bool:
        return rows.is_marked(self.rows.get, mark, self.state.now_ms, self.offset, 8, self.marked_days)

    def fold(self, offset: int, append_ms: int, seen: list[Sighting]) -> list[Release]:
        """Process one message and keep the calls that it releases."""
        self.offset = offset
        released = self.state.advance(append_ms)
        if seen:
            self.state.add(ORIGIN, seen, offset)
            key, _ = rows.batch_row(append_ms, offset, b"")
            self.rows[key] = rows.batch_row(append_ms, offset, b"")[1]
            self.values[key] = seen
        for release in released:
            identity = release.call.event["event_id"]
            assert self.released.setdefault(identity, release).call == release.call, "released again, differently"
        return released

    def restart(self, position: int, append_ms: int) -> None:
        """Drop the memory; `position` is the next offset to fold, and rows of later messages are torn."""
        self.state = self._state()
        stored = rows.read_all(self.rows.items(), append_ms - QUIET - 2 * HOLD, position)
        self.marked_days = stored.marked_days
        for at, offset, _ in stored.batches:
            key, _ = rows.batch_row(at, offset, b"")
            self.offset = offset
            self.state.advance(at)
            self.state.add(ORIGIN, self.values[key], offset)
        self.offset = position - 1
        self.state.advance(append_ms)


def run(messages: Iterable[Message]) -> Stage:
    """Fold the messages one by one, and let time pass until everything is decided."""
    stage, last = Stage(), T0
    offset = -1
    for offset, (append_ms, seen) in enumerate(messages):
        stage.fold(offset, append_ms, seen)
        last = append_ms
    stage.fold(offset + 1, last + QUIET + HOLD, [])
    assert stage.state.waiting == 0
    return stage


def totals(stage: Stage) -> list[tuple[int, int]]:
    """Return input and output tokens of the released calls."""
    return tokens([release.call for release in stage.released.values()])


def log(fleet: Fleet, random: Random, spread_ms: int) -> list[Message]:
    """Return a fleet's spans as messages in any order, some of them twice, `spread_ms` apart at most."""
    spans = fleet.spans + random.sample(fleet.spans, k=random.randint(0, len(fleet.spans)))
    random.shuffle(spans)
    messages, at = [], T0
    while spans:
        size = random.randint(1, 6)
        at += random.randint(0, spread_ms)
        messages.append((at, sightings(spans[:size])))
        del spans[:size]
    return messages


def test_only_days_with_marks_are_looked_up() -> None:
    """A partition that keeps ten years of marks would otherwise look up thousands of rows for each call."""
    today = T0 // rows.DAY_MS
    written = dict([rows.mark_row(T0 - 3 * rows.DAY_MS, 1, b"a"), rows.mark_row(T0 - 9 * rows.DAY_MS, 2, b"b")])
    days = rows.read_all(written.items(), 0, 10).marked_days
    assert days == {today - 3, today - 9}
    asked: list[bytes] = []

    def read(key: bytes) -> bytes | None:
        asked.append(key)
        return written.get(key)

    assert rows.is_marked(read, b"a", T0, 5, 3650, days)
    assert rows.is_marked(read, b"b", T0, 5, 3650, days)
    assert not rows.is_marked(read, b"b", T0, 5, 8, days), "its day is no longer remembered"
    assert not rows.is_marked(read, b"b", T0, 1, 3650, days), "a later message made it"
    assert len(asked) <= 7


@examples(150, deadline=None)
@given(fleets(), SEEDS)
def test_spans_within_the_hold_are_joined_in_any_order(fleet: Fleet, random: Random) -> None:
    """The stream gives the same calls as the pure function over all sightings, in any order."""
    stage = run(log(fleet, random, 100))
    assert totals(stage) == fleet.truth
    whole = normalise(sightings(fleet.spans))
    assert {identity: release.call.event for identity, release in stage.released.items()} == {
        call.event["event_id"]: call.event for call in whole
    }


@examples(150, deadline=None)
@given(fleets(sums=False), SEEDS)
def test_late_sightings_change_no_total(fleet: Fleet, random: Random) -> None:
    """Sightings that arrive minutes after their call was released are absorbed.

    Only an aggregate must not arrive before its calls by more than the hold, because it then counts itself.
    """
    assert totals(run(log(fleet, random, 20_000))) == fleet.truth


@examples(150, deadline=None)
@given(fleets(sums=False), SEEDS, st.integers(0, 20_000))
def test_restart_at_any_point_changes_nothing(fleet: Fleet, random: Random, spread: int) -> None:
    """The state is recovered from the rows; messages whose group was torn are folded again."""
    messages = log(fleet, random, spread)
    stage, offset = Stage(), 0
    while offset < len(messages):
        stage.fold(offset, *messages[offset])
        offset += 1
        if random.random() < 0.3:
            offset = random.randint(max(0, offset - 3), offset)
            stage.restart(offset, messages[offset - 1][0] if offset else T0)
    stage.fold(offset, messages[-1][0] + QUIET + HOLD, [])
    assert totals(stage) == totals(run(messages)) == fleet.truth


def test_call_with_an_unknown_input_waits_until_its_trace_is_silent() -> None:
    """Counted without its input, it could not be corrected; without any other sighting it counts all the same."""
    unread = sightings([chat("u", (0, 10), trace="u", start=0.1, end=0.9, scope="twin")])
    whole = sightings([chat("c", (100, 10), attributes={"gen_ai.response.id": ID(1)})])
    assert totals(run([(T0, unread), (T0 + 5 * HOLD, whole)])) == [(100, 10)]
    stage = Stage()
    stage.fold(0, T0, unread)
    assert not stage.fold(1, T0 + HOLD + QUIET - 1, [])
    (release,) = stage.fold(2, T0 + HOLD + QUIET, [])
    assert tokens([release.call]) == [(0, 10)]


def test_call_is_released_after_the_hold() -> None:
    """It is not released earlier, and it includes its other sighting's details."""
    stage = Stage()
    rich: dict[str, Any] = {
        "gen_ai.response.id": ID(1),
        "gen_ai.conversation.id": "s-1",
        "gen_ai.usage.reasoning.output_tokens": 4,
    }
    stage.fold(0, T0, sightings([chat("c", attributes={"gen_ai.response.id": ID(1)})]))
    assert stage.state.first_waiting() == 0
    stage.fold(1, T0 + HOLD - 1, sightings([chat("d", trace="d", start=-0.1, attributes=rich)]))
    assert not stage.released
    (release,) = stage.fold(2, T0 + HOLD, [])
    assert (release.call.session_id, release.call.event["reasoning"]) == ("s-1", 4)
    assert stage.state.first_waiting() is None
    assert not stage.fold(3, T0 + 3 * HOLD, sightings([chat("e", trace="e", attributes=rich)]))
    assert not stage.fold(4, T0 + 9 * HOLD, [])
    assert stage.state.late == 1


def test_response_id_is_remembered_for_days() -> None:
    """A gateway's cache hit shows the usage of a call of last week."""
    again = {"gen_ai.response.id": ID(1)}
    week = 7 * rows.DAY_MS
    messages = [
        (T0, sightings([chat("c", attributes={**again})])),
        (T0 + week, sightings([chat("d", trace="d", start=600_000, end=600_001, attributes={**again})])),
    ]
    assert totals(run(messages)) == [(100, 10)]


def test_span_sent_again_after_hours_counts_once() -> None:
    """A spool with old requests is drained."""
    spans = sightings([chat("c"), twin("w")])
    assert totals(run([(T0, spans), (T0 + 5 * 3_600_000, spans[:1]), (T0 + 9 * 3_600_000, spans)])) == [(100, 10)]


def test_root_span_of_a_long_run_does_not_count_its_calls_again() -> None:
    """Its calls were counted and forgotten long before its aggregate arrives."""
    run_span = agent("run", (100, 10), end=7200.0)
    early, late = sightings([chat("c", parent="run")]), sightings([run_span])
    assert totals(run([(T0, early), (T0 + 7_200_000, late)])) == [(100, 10)]


def test_aggregate_span_waits_for_the_root_of_its_trace() -> None:
    """A call below it may arrive until then; when the trace is closed, the aggregate counts."""
    stage = Stage()
    stage.fold(0, T0, sightings([agent("helper", (100, 10), parent="run")]))
    stage.fold(1, T0 + 4 * HOLD, [])
    assert not stage.released
    stage.fold(2, T0 + 4 * HOLD, sightings([agent("run", (300, 30))]))
    stage.fold(3, T0 + 5 * HOLD, [])
    assert totals(stage) == [(300, 30)]
    assert not stage.fold(4, T0 + 5 * HOLD, sightings([chat("c", parent="helper")]))
    stage.fold(5, T0 + 7 * HOLD, [])
    assert totals(stage) == [(300, 30)], "the sum has it already"


def test_equal_parallel_calls_are_counted_despite_late_duplicates() -> None:
    """Each instrumentation sees each call once, so a later equal call is another one."""
    one = sightings([chat("c0"), twin("w0")])
    two = sightings([chat("c1", trace="c1"), twin("w1", resource=OTHER)])
    assert len(totals(run([(T0, one), (T0 + 2 * HOLD, two)]))) == 3
