"""Records of one request whose times lie in different hours count once, in the hour of the one that came first."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.stepped_fold import NOW, NOW_MS, TOPICS, Message, Stepped, session_cost
from tests.support.usage import HOUR, ns

from tallystream.agents.session_cost import agent
from tallystream.agents.session_cost.hour_state import to_row
from tallystream.agents.session_cost.state_rows import is_head, load
from tallystream.schemas import keys
from tallystream.schemas.errors import Reason
from tallystream.schemas.hours import HOUR_MS
from tallystream.streams.runtime.changelog import Watermark

CLAUDE = {"connection_id": "claude-7f3a", "client": "claude", "provider": "anthropic"}


def told(request: int, output: int, hours_ago: int) -> dict[str, Any]:
    return {
        "event_id": f"{request:016x}",
        "occurred_at": ns(NOW - hours_ago * HOUR),
        "model": "claude-sonnet-4-5-20250929",
        "output": output,
    }


def message(offset: int, *events: dict[str, Any], session: str = "s", later_ms: int = 0) -> Message:
    value = orjson.dumps({**CLAUDE, "session_id": session, "events": events})
    return Message(offset, value, keys.join("claude-7f3a", session), NOW_MS + later_ms)


def outputs(rows: dict[bytes, dict[str, Any]]) -> dict[str, tuple[int, int, int]]:
    """Return requests, output and duplicates by hour."""
    return {
        row["hour"][11:13]: (
            sum(bucket["requests"] for bucket in row["buckets"]),
            sum(bucket["output"] for bucket in row["buckets"]),
            row["duplicates"],
        )
        for row in rows.values()
    }


def test_copy_with_a_time_of_another_hour_is_a_copy() -> None:
    partition = Stepped(0, session_cost())
    partition.fold([message(0, told(1, 500, 0))])
    partition.fold([message(1, told(1, 500, 1)), message(2, told(2, 7, 1)), message(3, told(2, 7, 0))])
    partition.commit()
    assert outputs(partition.rows) == {"14": (1, 500, 1), "13": (1, 7, 1)}
    partition.recover()
    partition.fold([message(4, told(1, 500, 20), told(3, 1, 20))])
    partition.commit()
    assert outputs(partition.rows) == {"14": (1, 500, 2), "13": (1, 7, 1), "18": (1, 1, 0)}
    assert partition.letters == []


def test_sum_that_is_as_before_is_written_after_a_torn_group_that_lowered_it() -> None:
    """A worker dies after it has published that a team's only request moved to another team. Its successor counts that,
    and an equal request of the first team, in one group: the first team's sum is then as it was in the store.
    """

    def of(team: str, offset: int, request: int, output: int) -> Message:
        value = {**CLAUDE, "session_id": "s", "attribution": {"team": team}, "events": [told(request, output, 0)]}
        return Message(offset, orjson.dumps(value), keys.join("claude-7f3a", "s"), NOW_MS)

    partition = Stepped(0, session_cost())
    partition.fold([of("a", 0, 1, 5)])
    partition.commit()
    moved, equal = of("b", 1, 1, 9), of("a", 2, 2, 5)
    partition.fold([moved])
    partition.commit(stored=0)
    partition.recover()
    partition.fold([moved, equal])
    partition.commit()
    assert {row["team"]: (row["requests"], row["output"]) for row in partition.hours.values()} == {
        "a": (1, 5),
        "b": (1, 9),
    }


def test_larger_record_of_another_hour_replaces_the_first_in_its_hour() -> None:
    partition = Stepped(0, session_cost())
    partition.fold([message(0, told(1, 1, 1), told(2, 9, 1))])
    partition.commit()
    partition.recover()
    partition.fold([message(1, told(1, 500, 0)), message(2, told(2, 3, 0), told(3, 4, 0))])
    partition.commit()
    assert outputs(partition.rows) == {"13": (2, 509, 0), "14": (1, 4, 0)}
    assert [letter.reason for letter in partition.letters] == [Reason.CONFLICTING_COUNTS] * 2
    (hour, other) = sorted(partition.hours.values(), key=lambda row: str(row["hour"]))
    assert (hour["output"], other["output"]) == (509, 4)


def test_request_of_another_session_is_another_request() -> None:
    partition = Stepped(0, session_cost())
    partition.fold([message(0, told(1, 500, 1), session="s"), message(1, told(1, 500, 0), session="s|t")])
    partition.fold([message(2, told(1, 500, 0), session="st")])
    partition.commit()
    assert outputs(partition.rows)["14"] == (1, 500, 0)
    assert sum(row["duplicates"] for row in partition.rows.values()) == 0
    assert len(partition.rows) == 3


def test_request_is_known_as_long_as_its_hour_is_open() -> None:
    """What a message finds depends on its own time and on the watermark, not on when rows were removed."""
    partition = Stepped(0, session_cost(lateness_ms=2 * HOUR_MS))
    partition.fold([message(0, told(1, 500, 2))])
    partition.commit()
    partition.fold([message(1, told(1, 500, 0), later_ms=2 * HOUR_MS)])
    partition.commit()
    assert outputs(partition.rows) == {"12": (1, 500, 0), "14": (1, 500, 0)}
    closed = Stepped(0, session_cost())
    closed.fold([message(0, told(1, 500, 2), told(7, 3, 2))])
    closed.commit()
    closed.recover(Watermark(b"2026-11-21T13:00:00Z", 1))
    closed.fold([message(1, told(1, 500, 0))])
    closed.commit()
    assert outputs(closed.rows) == {"12": (2, 503, 0), "14": (1, 500, 0)}
    closed.recover(Watermark(b"2026-11-21T13:00:00Z", 9))
    closed.fold([message(2, told(7, 3, 0))])
    closed.commit()
    assert outputs(closed.rows)["14"] == (1, 500, 0), "a repetition finds the hour that was open"


@examples(40)
@given(st.data())
def test_any_order_crash_or_torn_group_counts_each_request_once(data: st.DataObject) -> None:
    requests = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 3))
    bodies = data.draw(st.lists(st.lists(requests, min_size=1, max_size=4), min_size=1, max_size=12), label="bodies")
    messages = [message(n, *(told(*one) for one in body)) for n, body in enumerate(bodies)]
    partition = Stepped(0, session_cost())
    partition.take(data, messages, most=4)
    largest: dict[int, int] = {}
    for request, output, _ in (one for body in bodies for one in body):
        largest[request] = max(output, largest.get(request, 0))
    stored = partition.stored()
    rows = {key: orjson.loads(to_row(key, load(key, raw, stored.get))) for key, raw in stored.items() if is_head(key)}
    assert rows == partition.rows
    found = outputs(rows)
    assert (sum(f[0] for f in found.values()), sum(f[1] for f in found.values())) == (
        len(largest),
        sum(largest.values()),
    )
    assert all(requests for requests, _, _ in found.values()), "no row without a request"
    assert sum(row["output"] for row in partition.hours.values()) == sum(largest.values())


def test_trimming_keeps_what_is_not_stored_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "MAX_CACHE_IDS", 1)
    partition = Stepped(0, session_cost())
    for n in range(30):
        partition.fold([message(2 * n, told(n, 7, n % 5), session=f"s{n % 3}")])
        if n % 4:
            partition.commit()
    partition.fold([message(100 + n, told(n, 7, (n + 1) % 5), session=f"s{n % 3}") for n in range(30)])
    partition.commit()
    rows = partition.published[TOPICS.session_hour_rows.name].values()
    assert sum(bucket["requests"] for row in rows for bucket in row["buckets"]) == 30
    assert sum(row["duplicates"] for row in rows) == 30
