"""Creates all consumers of the product: without automatic commits and, except for elections, without a group.

The owner of a consumer without a group assigns its partitions and keeps its positions, and its partitions cannot be
revoked.
"""

from __future__ import annotations

from typing import Literal

from aiokafka import AIOKafkaConsumer

from tallystream.streams.kafka.settings import KafkaSettings

REQUEST_TIMEOUT = 40.0
"""Seconds for one answer of a broker; aiokafka's own default."""
FETCH_WAIT = 0.5
"""Seconds for which a broker holds an empty fetch; aiokafka's own default."""
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
        beyond: where to continue when a position is out of range; `none` raises OffsetOutOfRangeError.
        fetch_wait: seconds for which a broker holds an empty fetch.
        partition_bytes: maximum bytes of one partition in one response.
        answer_bytes: maximum bytes of one response.
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


def new_member(kafka: KafkaSettings, group: str, session_timeout: float, assignor: object) -> AIOKafkaConsumer:
    """Return a consumer that is a member of an election group, not started; `session_timeout` in seconds."""
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
