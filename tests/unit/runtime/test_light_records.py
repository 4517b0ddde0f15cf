"""Light records say what aiokafka's say, and leave the fetcher at the same offset."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from tallystream.streams.runtime.faust_backend.light_records import LightFetches, LightRecords, lighten

TP = TopicPartition("usage", 3)


def batch(base: int, count: int) -> bytearray:
    """Return a record batch whose first record has the offset `base`."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for n in range(count):
        headers = [("schema", b"usage/1")] if n % 2 else []
        builder.append(n, 1_700_000_000_000 + n, b"key %d" % n if n % 3 else None, b"value" if n % 5 else None, headers)
    raw: bytearray = builder.build()
    raw[:8] = base.to_bytes(8, "big")
    return raw


def fetched(raw: bytes, offset: int) -> PartitionRecords:
    return PartitionRecords(TP, MemoryRecords(raw), [], offset, None, None, True, READ_UNCOMMITTED)


def shown(records: list[Any]) -> list[tuple[Any, ...]]:
    return [(one.offset, one.timestamp, one.key, one.value, tuple(one.headers)) for one in records]


@pytest.mark.parametrize("offset", [0, 10, 13, 19, 24, 30])
def test_same_records_from_any_offset(offset: int) -> None:
    raw = bytes(batch(10, 9) + batch(22, 4))
    theirs, ours = fetched(raw, offset), LightRecords(fetched(raw, offset))
    taken, done = ours.take()
    assert done
    assert shown(taken) == shown(list(theirs))
    assert ours.next_fetch_offset == theirs.next_fetch_offset


@pytest.mark.parametrize("limit", [1, 4, 9, 10, 13, 14])
def test_reading_goes_on_where_it_was_interrupted(limit: int) -> None:
    raw = bytes(batch(10, 9) + batch(22, 4))
    ours, taken, done = LightRecords(fetched(raw, 11)), [], False
    while not done:
        some, done = ours.take(limit)
        assert len(some) == limit or done
        taken += some
        assert not some or some[-1].offset < ours.next_fetch_offset <= some[-1].offset + 4
    assert shown(taken) == shown(list(fetched(raw, 11)))
    assert ours.next_fetch_offset == 26


def test_corrupt_batch_is_refused() -> None:
    raw = batch(10, 9)
    raw[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        LightRecords(fetched(bytes(raw), 10)).take()


@pytest.mark.parametrize(("isolation", "light"), [(READ_UNCOMMITTED, True), (READ_COMMITTED, False)])
def test_only_a_consumer_that_ignores_transactions_is_lightened(isolation: int, light: bool) -> None:
    fetcher = SimpleNamespace(_isolation_level=isolation, _records={})
    lighten(SimpleNamespace(_fetcher=fetcher))
    assert isinstance(fetcher._records, LightFetches) == light


def test_results_become_light_and_errors_stay() -> None:
    fetches = LightFetches()
    result = FetchResult(TP, assignment=None, partition_records=fetched(bytes(batch(0, 2)), 0), backoff=0)
    fetches[TP] = result
    assert isinstance(result._partition_records, LightRecords)
    fetches[TP] = error = object()
    assert fetches[TP] is error


def test_fetcher_gets_what_aiokafka_would_have_given_it() -> None:
    """Also the position, in between and at the end, and nothing once the consumer has sought elsewhere."""
    raw, asked = bytes(batch(10, 9) + batch(22, 4)), [5, 5, None]

    def read(light: bool) -> list[tuple[Any, ...]]:
        position = SimpleNamespace(position=10, paused=False)
        position.consumed_to = lambda offset: setattr(position, "position", offset)
        assignment = SimpleNamespace(active=True, state_value=lambda _: position)
        result = FetchResult(TP, assignment=assignment, partition_records=fetched(raw, 10), backoff=0)
        if light:
            LightFetches()[TP] = result
        steps = [(shown(result.getall(limit)), position.position, result.has_more()) for limit in asked]
        again = FetchResult(TP, assignment=assignment, partition_records=fetched(raw, 10), backoff=0)
        if light:
            LightFetches()[TP] = again
        return [*steps, (again.getall(3), position.position, again.has_more())]

    assert read(light=True) == read(light=False)
