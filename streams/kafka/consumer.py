"""Every consumer of ours: without automatic commits and, but for the elections, without a group.

A consumer without a group is assigned its partitions by whoever created it, and its positions are its owner's: its
partitions cannot be revoked.
"""

from __future__ import annotations

from typing import Any, Literal

from aiokafka import AIOKafkaConsumer

from tallystream.streams.kafka.settings import KafkaSettings

REQUEST_TIMEOUT = 40.0
"""Seconds for one answer of a broker; aiokafka's own default."""
FETCH_WAIT = 0.5
"""Seconds that a broker holds a fetch that finds nothing; aiokafka's own default."""
PARTITION_BYTES = 1 << 20
ANSWER_BYTES = 52_428_800


def new_consumer(
    kafka: KafkaSettings,
    *,
    beyond: Literal["earliest", "latest", "none"] = "earliest",
    fetch_wait: float = FETCH_WAIT,
    partition_bytes: int = PARTITION_BYTES,
    answer_bytes: int = ANSWER_BYTES,
    request_timeout: float = REQUEST_TIMEOUT,
) -> AIOKafkaConsumer:
    """Return a consumer without a group, not started.

    Args:
        kafka: the cluster.
        beyond: where to go on when a position is not in the topic any more; `none` raises OffsetOutOfRangeError.
        fetch_wait: seconds that a broker holds a fetch that finds nothing.
        partition_bytes: of one partition in one answer.
        answer_bytes: of one answer.
        request_timeout: seconds for one answer of a broker.

    """
    return AIOKafkaConsumer(
        **kafka.client(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset=beyond,
        fetch_max_wait_ms=int(fetch_wait * 1000),
        fetch_max_bytes=answer_bytes,
        max_partition_fetch_bytes=partition_bytes,
        request_timeout_ms=int(request_timeout * 1000),
    )


def new_member(kafka: KafkaSettings, group: str, session_timeout: float, assignor: Any) -> AIOKafkaConsumer:
    """Return a member of a group that elects a leader, not started; `session_timeout` in seconds."""
    return AIOKafkaConsumer(
        **kafka.client(),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        session_timeout_ms=int(session_timeout * 1000),
        # Also how soon a member learns that another one has left.
        heartbeat_interval_ms=int(min(1.0, session_timeout / 4) * 1000),
        max_poll_interval_ms=max(60_000, int(session_timeout * 2000)),
        partition_assignment_strategy=(assignor,),
    )
