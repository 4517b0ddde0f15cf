"""The source must be the topic that was counted."""

from __future__ import annotations

import pytest
from aiokafka.structs import TopicPartition

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime.changelog import Position
from tallystream.streams.runtime.source_check import check_offset, check_record

SOURCE = TopicPartition("s", 0)


def test_source_must_be_the_counted_topic() -> None:
    check_offset(SOURCE, 5, 0, 9)
    check_offset(SOURCE, 5, 5, 5)
    with pytest.raises(UnfitError, match="retention deleted 5 to 5"):
        check_offset(SOURCE, 5, 6, 9)
    with pytest.raises(UnfitError, match="created again"):
        check_offset(SOURCE, 5, 0, 4)
    check_record(SOURCE, Position(5, 70), 4, 70)
    check_record(SOURCE, Position(0), 3, 70)
    for offset, append_ms in ((4, 71), (3, 70)):
        with pytest.raises(UnfitError, match="created again"):
            check_record(SOURCE, Position(5, 70), offset, append_ms)
