"""Asks Kafka how far topics reach and which deployment they belong to, in two round trips for both."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, LeaderNotAvailableError, for_code
from aiokafka.protocol.offset import OffsetRequest, OffsetResetStrategy

from tallystream.streams.identity import Identity, identity_in, metadata
from tallystream.streams.kafka.admin import administering, persistently
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.settings import KafkaSettings

Ends = Mapping[tuple[str, int], int]
"""The offset of the next record, by topic and partition."""
_ANYONE = -1
"""Kafka's replica id of a client."""
_READ_UNCOMMITTED = 0


async def topic_ends(
    kafka: KafkaSettings, prefix: str, topics: Collection[str], ended: Collection[str], *, seconds: float = 30.0
) -> tuple[Identity, Ends]:
    """Return the identity of `topics`, and where each partition of `ended`, which are some of them, ends now.

    Topics that do not exist are left out, and are not created.

    Raises:
        UnreachableError: Kafka did not answer within `seconds`.

    """

    async def ask() -> tuple[Identity, Ends]:
        found = await metadata(admin, topics)
        return identity_in(found, prefix), await _ends(admin, found, ended)

    try:
        async with asyncio.timeout(seconds), administering(kafka) as admin:
            return await persistently(ask, seconds)
    except (KafkaError, OSError, TimeoutError) as exc:
        raise unreachable(kafka, exc) from exc


async def _ends(admin: AIOKafkaAdminClient, found: Mapping[str, Any], ended: Collection[str]) -> Ends:
    of_leader: defaultdict[int, dict[str, list[tuple[int, int]]]] = defaultdict(dict)
    for topic in found["topics"]:
        for partition in topic["partitions"] if topic["topic"] in ended else ():
            if partition["leader"] < 0:
                raise LeaderNotAvailableError(topic["topic"])
            asked = of_leader[partition["leader"]].setdefault(topic["topic"], [])
            asked.append((partition["partition"], OffsetResetStrategy.LATEST))
    answers = await asyncio.gather(*(_ask_leader(admin, leader, asked) for leader, asked in of_leader.items()))
    return {place: end for answer in answers for place, end in answer.items()}


async def _ask_leader(admin: AIOKafkaAdminClient, leader: int, asked: Mapping[str, list[tuple[int, int]]]) -> Ends:
    request = OffsetRequest(_ANYONE, _READ_UNCOMMITTED, list(asked.items()))
    response = await admin._send_request(request, leader)  # noqa: SLF001 - it has no public way
    ends = {}
    for topic in response.to_object()["topics"]:
        for one in topic["partitions"]:
            if one["error_code"]:
                raise for_code(one["error_code"])(topic["topic"])
            ends[topic["topic"], one["partition"]] = one["offset"]
    return ends
