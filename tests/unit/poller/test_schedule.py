"""The schedule of windows: despite failures and restarts nothing is skipped and no settled bucket is polled again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallystream.streams.poller.schedule import BucketWindow, Coverage, TimeSpan

DAY = 86_400
NOON = 1_795_262_400.0  # 2026-11-21T12:00:00Z
TODAY = int(NOON) // DAY * DAY


def window(restated: int = 3, reach: int = 30, chunk: int = 30) -> BucketWindow:
    return BucketWindow(DAY, restated * DAY, reach * DAY, chunk * DAY)


def days(spans: list[TimeSpan]) -> list[int]:
    """The days of the spans, in the order in which they are requested, relative to today."""
    return [(start - TODAY) // DAY for span in spans for start in range(span.start, span.end, DAY)]


def test_first_poll_fetches_open_buckets_then_history_newest_first() -> None:
    plan = window(chunk=10).plan(NOON, window().begin(NOON))
    assert days(plan[:1]) == [-3, -2, -1, 0]
    assert plan[1:] == [TimeSpan(TODAY - n * DAY, TODAY - m * DAY) for n, m in ((13, 3), (23, 13), (30, 23))]


def test_restart_fetches_only_open_buckets() -> None:
    covered = Coverage(TODAY - 30 * DAY, TODAY - 3 * DAY)
    assert days(window().plan(NOON, covered)) == [-3, -2, -1, 0]


def test_ended_day_stays_open_while_it_can_be_restated() -> None:
    assert window(restated=3).opens(TODAY) == TODAY - 3 * DAY
    assert window(restated=3).opens(TODAY - 0.5) == TODAY - 4 * DAY
    assert window(restated=0).opens(NOON) == TODAY


def test_gap_after_downtime_is_fetched_first() -> None:
    covered = Coverage(TODAY - 30 * DAY, TODAY - 10 * DAY)
    assert days(window().plan(NOON, covered)) == list(range(-10, 1))


def test_backfill_extends_history_once() -> None:
    covered = Coverage(TODAY - 30 * DAY, TODAY - 3 * DAY)
    plan = window(chunk=30).plan(NOON, covered, 90 * DAY)
    assert plan[1:] == [TimeSpan(TODAY - 60 * DAY, TODAY - 30 * DAY), TimeSpan(TODAY - 90 * DAY, TODAY - 60 * DAY)]
    done = covered
    for span in plan:
        done = done.with_span(span, window().opens(NOON))
    assert done == Coverage(TODAY - 90 * DAY, TODAY - 3 * DAY)
    assert days(window().plan(NOON, done, 90 * DAY)) == [-3, -2, -1, 0]


@given(
    st.integers(0, 5), st.integers(0, 20), st.sampled_from([1, 7, 30]),
    st.lists(st.tuples(st.floats(0, 9), st.integers(0, 12), st.integers(0, 40)), min_size=1, max_size=12),
)  # fmt: skip
def test_coverage_has_no_gaps(restated: int, reach: int, chunk: int, polls: list[tuple[float, int, int]]) -> None:
    """Each poll happens some days later and fails after some of its queries, or requests more history."""
    rule = window(restated, reach, chunk)
    settled_when: dict[int, float] = {}
    now, coverage = NOON, rule.begin(NOON)
    for later, successes, backfill in polls:
        now += later * DAY
        plan = rule.plan(now, coverage, backfill * DAY)
        assert len(set(days(plan))) == len(days(plan))
        assert all(span.end - span.start <= rule.chunk for span in plan)
        before = coverage
        for span in plan[:successes]:
            for start in range(span.start, span.end, DAY):
                already = before.first <= start < before.settled
                assert not already or start >= rule.opens(now), "a settled bucket was asked for again"
                if start + DAY + restated * DAY <= now:
                    settled_when[start] = now
            coverage = coverage.with_span(span, rule.opens(now))
        assert all(start in settled_when for start in range(coverage.first, coverage.settled, DAY))
    for span in rule.plan(now, coverage):
        coverage = coverage.with_span(span, rule.opens(now))
    assert coverage.settled == rule.opens(now)
    assert coverage.first <= min((now - reach * DAY) // DAY * DAY, rule.opens(now))
