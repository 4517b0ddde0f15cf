"""A request with thousands of messages holds up no other one, and is answered only when all are acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from tallystream.streams.gateway import GatewayConfig
from tallystream.streams.gateway.delivery.batch import ProducerBatch
from tallystream.streams.gateway.delivery.group_commit import AT_ONCE, Delivery
from tallystream.streams.gateway.delivery.producer import Link
from tallystream.streams.gateway.message import USAGE_SCHEMA, Message, Place
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.pseudonyms import pseudonyms
from tallystream.streams.gateway.spool.spool import Spool
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import SystemClock

TOPICS = Topics("t")


class HeldLink(Link):
    """A connected link whose batches are acknowledged when the test says so."""

    held: list[ProducerBatch]

    def takes(self, place: Place) -> bool:
        return bool(place.topic)

    def send_grouped(self, groups: Mapping[Place, Sequence[Message]]) -> list[ProducerBatch]:
        made = []
        for place, messages in groups.items():
            batch = ProducerBatch(place, 0, 0.0)
            batch.messages += messages
            made.append(batch)
        self.held += made
        return made

    def acknowledge(self) -> None:
        for batch in self.held:
            batch.settle()


def messages(number: int, name: str) -> list[Message]:
    return [Message(TOPICS.usage.name, f"{name}|{one}".encode(), b"{}", USAGE_SCHEMA) for one in range(number)]


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def link(tmp_path: Path) -> HeldLink:
    config = GatewayConfig(KafkaSettings("127.0.0.1:1"), TOPICS, tmp_path, pseudonyms(b"key"))
    made = HeldLink(config, Metrics(CollectorRegistry()), SystemClock())
    made.held = []
    return made


async def test_large_request_is_sent_once_and_waits_for_every_acknowledgement(link: HeldLink) -> None:
    delivery = Delivery(link, cast(Spool, None), Metrics(CollectorRegistry()), SystemClock())
    running = asyncio.create_task(delivery.run())
    sent = messages(3 * AT_ONCE + 7, "large")
    large = asyncio.create_task(delivery.deliver(sent))
    small = asyncio.create_task(delivery.deliver(messages(1, "small")))
    await turns()
    link.acknowledge()
    await turns()
    assert not large.done(), "only its first part is acknowledged"
    while not (large.done() and small.done()):
        link.acknowledge()
        await asyncio.sleep(0)
    assert sorted(message.key for batch in link.held for message in batch.messages) == sorted(
        message.key for message in [*sent, *messages(1, "small")]
    )
    await cancel(running)


async def test_small_request_waits_for_a_part_of_a_large_one_only(link: HeldLink) -> None:
    delivery = Delivery(link, cast(Spool, None), Metrics(CollectorRegistry()), SystemClock())
    running = asyncio.create_task(delivery.run())
    large = asyncio.create_task(delivery.deliver(messages(40 * AT_ONCE, "large")))
    await turns()
    assert sum(len(batch.messages) for batch in link.held) == AT_ONCE
    small = asyncio.create_task(delivery.deliver(messages(1, "small")))
    await turns()
    link.acknowledge()
    await turns()
    link.acknowledge()
    await turns()
    assert small.done()
    assert not large.done()
    await cancel(large, small, running)
