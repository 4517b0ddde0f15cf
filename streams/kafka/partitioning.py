"""The partition of a key, as Kafka's own clients choose it.

It is computed here instead of by the client library, because a session must always go to the same partition.
"""

from __future__ import annotations

from functools import lru_cache

from aiokafka.partitioner import murmur2


@lru_cache(maxsize=16_384)
def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key, given how many the topic has."""
    if partitions == 1:
        return 0
    return int(murmur2(key) & 0x7FFFFFFF) % partitions
