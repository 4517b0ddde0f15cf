"""When `wait --caught-up` considers a group caught up."""

from __future__ import annotations

import pytest

from tallystream.cli.commands.catch_up import still_behind, words_of_lost
from tallystream.streams.kafka.lag import PartitionLag


@pytest.mark.parametrize(
    ("lag", "behind"),
    [
        (PartitionLag(0, 10, 0, 10), 0),
        (PartitionLag(0, 7, 0, 10), 3),
        (PartitionLag(0, None, 4, 10), 6),
        (PartitionLag(0, None, 10, 10), 0),
        (PartitionLag(0, 2, 4, 10), 6),
    ],
)
def test_lag_is_the_sum_over_partitions(lag: PartitionLag, behind: int) -> None:
    assert lag.behind == behind
    found = still_behind({0: lag.end}, [lag])
    assert (found is None) == (behind == 0)
    if behind:
        assert found is not None
        assert f"{behind} messages" in found


def test_records_after_the_goal_are_not_waited_for() -> None:
    assert still_behind({0: 10}, [PartitionLag(0, 10, 0, 5_000)]) is None


def test_position_past_the_end_means_not_caught_up() -> None:
    lag = PartitionLag(0, 10, 0, 3)
    assert lag.beyond
    assert "recreated" in (still_behind({0: 3}, [lag]) or "")


def test_records_removed_uncounted_mean_not_caught_up() -> None:
    lags = [PartitionLag(0, 6, 14, 14), PartitionLag(1, 5, 5, 5), PartitionLag(2, None, 3, 9)]
    assert [one.lost for one in lags] == [8, 0, 0]
    assert "8 messages" in (words_of_lost(lags) or "")
    assert words_of_lost(lags[1:]) is None
