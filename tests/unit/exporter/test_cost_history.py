"""The inputs of the anomaly alert."""

from __future__ import annotations

from tallystream.exporter.cost_history import DAYS, history
from tallystream.schemas.money import PICO


def test_hour_is_compared_with_the_same_hour_of_earlier_days() -> None:
    hours = {(1000 - 24 * day, "a"): day * PICO for day in range(1, 5)} | {(1000, "a"): 9 * PICO, (1000, "b"): PICO}
    hours |= {(1000 - 24 * day - 1, "a"): 10**6 * PICO for day in range(1, 4)}  # another hour of the day
    found = history(hours, 1000)
    assert (found.cost, found.days, found.most) == (10.0, 4, 4.0)
    assert found.mean == 2.5
    assert round(found.deviation, 6) == 1.118034


def test_hours_without_cost_count_as_0_after_the_first_one() -> None:
    found = history({(1000 - 24 * 9, "a"): PICO, (1000, "a"): PICO}, 1000)
    assert (found.days, found.mean, found.most) == (9, 1 / 9, 1.0)
    assert history({}, 1000).days == 0
    assert history({(0, "a"): PICO}, 24 * 99).days == DAYS
