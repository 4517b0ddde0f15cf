"""Messages of a session that are counted together give what counting one after the other gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.stepped_fold import NOW_MS, Message, Stepped, session_cost
from tests.unit.session_cost.test_ordinary import HOUR, letters, message, messages

from tallystream.agents.session_cost import event_ids, ordinary
from tallystream.agents.session_cost.runs import MAX_RUN, Tally, common_bounds, count_run, events_of
from tallystream.schemas import keys
from tallystream.schemas.hours import hour_from_iso
from tallystream.streams.runtime.changelog import Watermark


def folded(made: Sequence[Message], groups: Sequence[int], watermark: Watermark | None, *, single: bool) -> Stepped:
    """Fold the messages in groups, each of these at once or message by message."""
    one = Stepped(0, session_cost())
    one.recover(watermark)
    left = list(made)
    for size in [*groups, len(made)]:
        some, left = left[:size], left[size:]
        for batch in [[each] for each in some] if single else [some]:
            if batch:
                one.fold(batch)
        if some:
            one.commit()
    return one


@examples(300)
@given(
    st.lists(st.tuples(messages(), st.sampled_from([0, 0, 0, 1, HOUR, 5 * HOUR])), min_size=1, max_size=25),
    st.lists(st.integers(1, 12), max_size=5),
    st.sampled_from([None, Watermark(b"2026-11-21T13:00:00Z", -1)]),
)
def test_run_counts_as_its_messages_do_one_by_one(
    batches: list[tuple[dict[str, Any], int]], groups: list[int], watermark: Watermark | None
) -> None:
    """Also when ids are forgotten in between, and when messages came hours apart."""
    at, made = NOW_MS, []
    for offset, (batch, later) in enumerate(batches):
        at += later
        key = keys.join(batch["connection_id"], batch["session_id"])
        made.append(Message(offset, orjson.dumps(batch), key, at))
    with (
        mock.patch.object(event_ids, "UNIT", 4),
        mock.patch.object(event_ids, "MAX_IDS", 12),
        mock.patch.object(ordinary, "MAX_IDS", 12),
    ):
        run, single = (folded(made, groups, watermark, single=single) for single in (False, True))
    assert run.stored() == single.stored()
    assert run.rows == single.rows
    assert run.hours == single.hours
    assert sorted(map(str, letters(run))) == sorted(map(str, letters(single)))


@pytest.mark.parametrize("size", [2, MAX_RUN])
def test_ordinary_messages_are_counted_together(size: int) -> None:
    """Otherwise the property above would compare one way of counting with itself."""
    one = Stepped(0, session_cost())
    tallies: list[Tally] = []
    derived, fold = one.fold_of._derived[0], one.fold_of
    made = [Message(n, value, key) for n, (key, value) in enumerate(message("s", n, n + 1) for n in range(1, size + 1))]
    bounds = common_bounds(derived, made)
    session = derived.known.session(made[0].key, made[0].value)
    assert bounds is not None
    assert session is not None
    assert not count_run(one.partition, derived, session, made, bounds, fold._book, fold._state, tallies)
    assert tallies == [(size + 1, size - 1, 0)]


def test_bounds_of_messages_around_the_end_of_an_hour_differ() -> None:
    derived = session_cost_derived()
    ends = (hour_from_iso("2026-11-21T15:00:00Z")) * HOUR
    key, value = message("s", 1)
    assert common_bounds(derived, [Message(1, value, key, ends - 1), Message(2, value, key, ends + 1)]) is None
    assert common_bounds(derived, [Message(1, value, key, ends + 1), Message(2, value, key, ends + 2)]) is not None


def session_cost_derived() -> Any:
    return Stepped(0, session_cost()).fold_of._derived[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b'[{"a":1},{"a":[2}]', b'[{"a":3]}]'),
        (b"[1],[2", b"3]"),
        (b'[{"a":"]', b'["}]'),
        (b'[{"a":"', b'"}]'),
        (b"[1", b"2]"),
        (b"[]", b"[1]"),
        (b"[1]]", b"[[2]"),
    ],
)
def test_lists_that_are_valid_only_together_are_not_taken(first: bytes, second: bytes) -> None:
    """Each message is judged by what it contains itself."""
    derived = session_cost_derived()
    key, value = message("s", 1)
    session = derived.known.session(key, value)
    made = [Message(n, session.start + raw + b"}", key) for n, raw in enumerate((first, second))]
    assert events_of(session, made) is None
