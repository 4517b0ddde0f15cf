"""Limits of a connection: turns, which only delay requests, and quotas, above which they get 429."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tallystream.schemas.connections import Quota
from tallystream.streams.gateway.errors import RequestRefusedError
from tallystream.streams.gateway.quotas import AT_WORK, BURST, Pauses, Quotas, Turns


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def now_ns(self) -> int:
        return int(self.now * 1e9)


def quotas(clock: HandClock, **limits: int) -> Quotas:
    return Quotas(Quota(**limits), clock)


def test_quota_allows_a_burst_and_refills_over_time() -> None:
    clock = HandClock()
    found = quotas(clock, requests=5)
    for _ in range(int(5 * BURST)):
        found.request("a", None)
    with pytest.raises(RequestRefusedError) as refused:
        found.request("a", None)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
    found.request("b", None)
    clock.now += 1.0
    for _ in range(5):
        found.request("a", None)
    with pytest.raises(RequestRefusedError, match="5 requests a second"):
        found.request("a", None)


def test_large_body_is_accepted_and_delays_the_next_ones() -> None:
    clock = HandClock()
    found = quotas(clock, bytes=100)
    found.received("a", None, 10_000)
    with pytest.raises(RequestRefusedError) as refused:
        found.received("a", None, 1)
    assert refused.value.headers["Retry-After"] == "60"
    clock.now += 91.0
    found.received("a", None, 1)


def test_held_bytes_are_released() -> None:
    found = quotas(HandClock(), held_bytes=100)
    assert found.hold("a", None, 60)
    with pytest.raises(RequestRefusedError):
        found.hold("a", None, 60)
    assert found.hold("b", None, 60)
    assert found.hold("a", None, 40)
    found.release("a", 60)
    found.release("a", 40)
    assert found.hold("a", None, 500)
    assert not found.hold("c", Quota(held_bytes=0), 500), "unlimited"


def test_own_quota_overrides_the_default_and_unset_means_unlimited() -> None:
    found = quotas(HandClock(), requests=1, dead_letters=1)
    for _ in range(100):
        found.request("free", Quota(requests=0))
        found.received("free", None, 10**9)
    found.dead_letters("a", Quota(dead_letters=1000), 500)
    found.dead_letters("a", Quota(dead_letters=1000), 500)


@contextlib.asynccontextmanager
async def turn(turns: Turns, connection: str) -> AsyncIterator[None]:
    """A request's turn, as `Acceptance.take` takes it."""
    line = turns.line(connection)
    if not turns.begin(line):
        await turns.wait(line)
    try:
        yield
    finally:
        turns.done(line)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_single_connection_may_use_all_turns() -> None:
    turns, at_work, go = Turns(HandClock()), 0, asyncio.Event()

    async def work() -> None:
        nonlocal at_work
        async with turn(turns, "a"):
            at_work += 1
            await go.wait()

    tasks = [asyncio.create_task(work()) for _ in range(100)]
    await settle()
    assert at_work == 100
    go.set()
    await asyncio.gather(*tasks)


async def test_flood_of_one_connection_delays_only_itself() -> None:
    clock = HandClock()
    turns = Turns(clock)
    at_work: dict[str, int] = {"flood": 0, "other": 0}
    most = 0
    done: list[str] = []
    go = asyncio.Semaphore(0)

    async def work(name: str) -> None:
        nonlocal most
        async with turn(turns, name):
            at_work[name] += 1
            most = max(most, at_work["flood"])
            await go.acquire()
            at_work[name] -= 1
            done.append(name)

    first = asyncio.create_task(work("other"))
    await settle()
    clock.now += 0.1
    flood = [asyncio.create_task(work("flood")) for _ in range(100)]
    await settle()
    second = asyncio.create_task(work("other"))
    await settle()
    assert most == AT_WORK // 2
    assert at_work["other"] == 2, "the other does not wait behind the flood"
    for number in range(102):
        # half of them are cancelled while they wait
        if number < 40:
            flood.pop().cancel()
        else:
            go.release()
        clock.now += 0.01
        await settle()
    await asyncio.gather(first, second, *flood)
    assert done.count("other") == 2
    assert done.count("flood") == 60


async def test_cancelled_waiter_passes_its_turn_on() -> None:
    clock = HandClock()
    turns = Turns(clock)
    async with turn(turns, "b"):
        clock.now += 0.1
        async with turn(turns, "a"), turn(turns, "a"), turn(turns, "a"):
            async with turn(turns, "a"):
                waiting = asyncio.create_task(turn(turns, "a").__aenter__())
                last = asyncio.create_task(turn(turns, "a").__aenter__())
                await settle()
            waiting.cancel()
            await settle()
            assert last.done()
            assert waiting.cancelled()


async def test_refusals_wait_but_only_a_limited_number_of_them() -> None:
    pauses = Pauses(seconds=3600.0, most=2)
    waiting = [asyncio.create_task(pauses.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    await pauses.wait()
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    third = asyncio.create_task(pauses.wait())
    await asyncio.sleep(0)
    await pauses.wait()
    assert not third.done(), "it has taken the place of the one that went away"
    for task in (waiting[1], third):
        task.cancel()
    await asyncio.wait([waiting[1], third])
    await Pauses(seconds=0.0).wait()
