"""One active poller at a time, on a real group coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from aiokafka.protocol.group import LeaveGroupRequest
from prometheus_client import CollectorRegistry
from tests.support.openai_rig import Rig, only, rig
from tests.support.waiting import until

from tallystream.schemas.errors import UnreachableError
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.leader_election import Election, Fence, NotLeaderError
from tallystream.streams.poller.published import PublishedIndex
from tallystream.streams.poller.publisher import Publisher
from tallystream.streams.poller.service import Poller

pytestmark = pytest.mark.kafka


@pytest.fixture
async def topics(kafka: KafkaSettings, prefix: str) -> Topics:
    found = Topics(prefix, 1)
    await ensure(kafka, (found.openai_records, found.poller_control))
    return found


async def joined(one: Election) -> None:
    await until(lambda: one.joined, "it has joined")


def member(kafka: KafkaSettings, topics: Topics, timeout: float = 10.0) -> Election:
    return Election(kafka, topics.poller_group, topics.poller_control.name, timeout)


async def test_joining_standby_does_not_disturb_the_active_poller(kafka: KafkaSettings, topics: Topics) -> None:
    async with member(kafka, topics) as first:
        await until(lambda: first.term, "the first is active")
        for _ in range(3):
            async with member(kafka, topics) as second:
                await joined(second)
                await until(lambda: first.term, "the first is active again")
                assert second.term is None
                term = first.term
                assert term is not None
                assert await first.confirm(term) is not None


async def test_leaving_poller_hands_over_immediately(kafka: KafkaSettings, topics: Topics) -> None:
    """The session timeout is much longer than the test, so only a member that leaves is replaced in time."""
    async with AsyncExitStack() as stack:
        first = member(kafka, topics, 90.0)
        await first.__aenter__()
        await until(lambda: first.term, "the first is active")
        second = await stack.enter_async_context(member(kafka, topics, 90.0))
        await until(lambda: second.joined, "the second has joined")
        await until(lambda: first.term, "the first is still active")
        await first.__aexit__(None, None, None)
        await until(lambda: second.term, "the second is active", 60.0)


async def test_at_most_one_poller_is_active(kafka: KafkaSettings, topics: Topics) -> None:
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(member(kafka, topics)) for _ in range(3)]
        await until(lambda: all(one.joined for one in members), "all have joined")
        await until(lambda: sum(one.term is not None for one in members) == 1, "one is active")
        confirmed = [await one.confirm(one.term or 0) for one in members]
        assert sum(until is not None for until in confirmed) == 1


async def test_expired_lease_publishes_nothing(kafka: KafkaSettings, topics: Topics) -> None:
    async with rig(kafka, topics.prefix, only("/models")) as one:
        await one.poll()
        (record,) = (await one.records()).values()
        async with member(kafka, topics) as election, Publisher(kafka, topics) as publisher:
            term = await until(lambda: election.term, "active")
            ledger, fence = PublishedIndex(kafka, topics.openai_records.name), Fence(election, term)
            await publisher.publish(fence, ledger, [record], None)
            async with member(kafka, topics) as other:
                await until(lambda: other.joined and election.term, "the group has balanced anew")
                with pytest.raises(NotLeaderError):
                    await publisher.publish(fence, ledger, [record], None)
        assert len(await one.messages(topics.openai_records.name)) == 2


async def test_poll_interrupted_by_a_rebalance_is_discarded_and_repeated(kafka: KafkaSettings, prefix: str) -> None:
    async with rig(kafka, prefix, only("/models")) as one:
        one.order(match="/models", kind="latency", seconds=20.0, times=1)
        async with one.polling(session_timeout=10.0) as (poller, _):
            await until(lambda: one.sandbox.faults.state()[0]["hit"], "a poll is under way")
            async with member(kafka, one.topics) as standby:
                await joined(standby)
                await until(lambda: one.metric("tallystream_poller_polls_discarded_total"), "it is thrown away")
                await until(one.records, "it was made again")
                assert poller.ready().why == "active"


async def test_poller_replaced_unnoticed_during_a_poll_publishes_nothing_and_polls_again(
    kafka: KafkaSettings, prefix: str
) -> None:
    """The coordinator has removed the member, which learns it only when its first write asks to be confirmed."""
    async with rig(kafka, prefix, only("/models")) as one:
        one.order(match="/models", kind="latency", seconds=0.3, times=1)
        async with one.polling(session_timeout=90.0) as (poller, running):
            await until(lambda: one.sandbox.faults.state()[0]["hit"], "a poll is under way")
            assert poller._election is not None
            coordinator = poller._election._consumer._coordinator
            await coordinator._send_req(LeaveGroupRequest(one.topics.poller_group, coordinator.member_id))
            await until(
                lambda: running.done() or one.metric("tallystream_poller_polls_discarded_total"), "it is thrown away"
            )
            await until(lambda: running.done() or one.records(), "it was made again")
            assert not running.done(), running.exception()
            assert one.metric("tallystream_poller_polls_discarded_total") == 1


async def test_member_removed_from_the_group_is_not_confirmed(kafka: KafkaSettings, topics: Topics) -> None:
    """As after a pause: the member considers its term valid, the coordinator does not."""
    async with member(kafka, topics) as election:
        term = await until(lambda: election.term, "active")
        coordinator = election._consumer._coordinator
        await coordinator._send_req(LeaveGroupRequest(topics.poller_group, coordinator.member_id))
        assert election.term == term
        assert await election.confirm(term) is None


async def test_poll_once_reports_another_active_poller(kafka: KafkaSettings, prefix: str) -> None:
    async with rig(kafka, prefix, only("/models")) as one:
        await one.poll()
        async with member(kafka, one.topics) as election:
            await until(lambda: election.term, "active")
            with pytest.raises(UnreachableError, match="another poller is the active one"):
                await one.poll(session_timeout=1.0)


@pytest.fixture
async def two(kafka: KafkaSettings, prefix: str) -> AsyncIterator[Rig]:
    async with rig(kafka, prefix, only("/models", "/usage")) as one:
        yield one


async def test_standby_takes_over_immediately_from_a_stopped_poller(two: Rig) -> None:
    config = replace(two.config, interval=1.0, session_timeout=90.0)
    pollers = [Poller(config, CollectorRegistry(), two.clock) for _ in range(2)]
    tasks = [asyncio.create_task(poller.run()) for poller in pollers]
    try:
        await until(lambda: [poller.ready().ok for poller in pollers] == [True, True], "both have joined")
        await until(lambda: sorted(poller.ready().why for poller in pollers) == ["active", "standby"], "one is active")
        await until(two.records, "something was polled")
        active = next(index for index, poller in enumerate(pollers) if poller.ready().why == "active")
        tasks[active].cancel()
        await until(
            lambda: pollers[1 - active].ready().why == "active", "the standby polls before the session timeout", 60.0
        )
        assert pollers[1 - active].healthy().ok
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
