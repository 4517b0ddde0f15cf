"""When a worker counts as stuck."""

from __future__ import annotations

import pytest

from tallystream.streams.runtime import PartitionProgress, Progress

IDLE = PartitionProgress(5, 5, 5, 0.0)


@pytest.mark.parametrize(
    ("progress", "stuck"),
    [
        (Progress({}, 0, 1e6), False),
        (Progress({0: IDLE}, 0, 1e6), False),
        (Progress({0: IDLE}, 1, 31.0), True),
        (Progress({0: IDLE}, 1, 29.0), False),
        (Progress({0: PartitionProgress(5, 5, 6, 0.0)}, 0, 31.0), True),
        (Progress({0: PartitionProgress(5, 5, 6, 0.0)}, 0, 29.0), False),
        (Progress({0: PartitionProgress(5, 5, None, 0.0)}, 0, 1e6), False),
        (Progress({0: PartitionProgress(6, 5, 6, 31.0), 1: IDLE}, 0, 0.0), True),
        (Progress({0: PartitionProgress(6, 5, 6, 29.0), 1: IDLE}, 0, 0.0), False),
    ],
)
def test_stuck_means_work_without_progress(progress: Progress, stuck: bool) -> None:
    assert (progress.stuck(30.0) is not None) is stuck
