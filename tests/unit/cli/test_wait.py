"""When `wait --caught-up` considers a group caught up."""

from __future__ import annotations

import pytest

from tallystream.cli.commands.catch_up import nothing_left_out, still_behind, words_of_lost
from tallystream.schemas.errors import MismatchError
from tallystream.schemas.status import GatewayStatus
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


def drained(damaged: int = 0, foreign: int = 0) -> GatewayStatus:
    return GatewayStatus(
        requests_in_progress=0, quarantine_requests=0, quarantine_bytes=0, spool_messages=0, spool_bytes=0,
        spool_max_bytes=1, spool_oldest_age_seconds=0, spool_files_damaged=damaged, spool_foreign_messages=foreign,
        kafka_live=True, connections=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gateways", "words"),
    [
        ([drained(damaged=2), drained(damaged=2)], ["2 damaged spool files"]),
        ([drained(), drained(foreign=7)], ["7 acknowledged messages"]),
        ([drained(1, 3)], ["1 damaged spool files", "3 acknowledged messages"]),
    ],
)
def test_files_that_no_gateway_sends_are_a_mismatch(gateways: list[GatewayStatus], words: list[str]) -> None:
    with pytest.raises(MismatchError) as caught:
        nothing_left_out(gateways)
    assert caught.value.exit_code == 4
    assert all(one in caught.value.message for one in words)


def test_gateways_without_such_files_have_left_nothing_out() -> None:
    nothing_left_out([])
    nothing_left_out([drained(), drained()])
