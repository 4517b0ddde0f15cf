"""The partition of a message must not depend on the Kafka client."""

from __future__ import annotations

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from tallystream.streams.kafka.partitioning import partition_of


@given(st.binary(max_size=64), st.integers(1, 64))
def test_partitions_match_other_kafka_clients(key: bytes, partitions: int) -> None:
    everyone = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, everyone, everyone)


def test_partitions_of_known_keys_are_stable() -> None:
    # From the Java client's own test of murmur2 (UtilsTest.testMurmur2): "foobar" and "a-little-bit-long-string".
    assert partition_of(b"foobar", 1 << 31) == -790332482 & 0x7FFFFFFF
    assert partition_of(b"a-little-bit-long-string", 1 << 31) == -985981536 & 0x7FFFFFFF
