"""Sinks are killed, paused and resumed: every entity must end at its newest version."""

from __future__ import annotations

import asyncio
import random
import signal
from functools import partial
from pathlib import Path

import pytest
from tests.support.port_rig import Rig, SinkProcess, make_row, rig, sink
from tests.support.waiting import PATIENCE, until

from tallystream.sandbox import Fault
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(900)]
HOUR = "2026-11-21T13:00:00Z"
BULK = "coding_agent_session/entities/bulk"


def _written(one: Rig, writes: int) -> bool:
    """Tell whether Port has taken more writes than that."""
    return one.sandbox.store.writes > writes


async def right(one: Rig, seconds: float = PATIENCE) -> None:
    await until(lambda: not one.wrong_sessions(), lambda: f"sessions differ: {one.wrong_sessions()}", seconds)


async def active(one: SinkProcess) -> None:
    await until(lambda: _is_active(one), "the sink is active")


async def _is_active(one: SinkProcess) -> bool:
    return (await one.role()) == "active"


async def test_entities_end_at_their_newest_version_after_kills(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    rng = random.Random(21)
    async with rig(kafka, prefix) as one:
        one.sandbox.faults.add(Fault(match=BULK, kind="latency", seconds=0.2, probability=0.3))
        version = 0

        async def change() -> None:
            nonlocal version
            while True:
                version += 1
                await one.rows(*(make_row(rng, f"s{rng.randrange(150)}", HOUR, version) for _ in range(20)))
                await asyncio.sleep(0.02)

        changing = asyncio.create_task(change())
        with sink(one, tmp_path) as running:
            for _ in range(3):
                writes = one.sandbox.store.writes
                goal = writes + rng.randrange(20, 200)
                await until(partial(_written, one, goal), "it writes")
                running.kill()  # whatever it is doing
                running.start()
            changing.cancel()
            await right(one)
            assert not await one.letters()
            assert await running.stop() == 0


async def test_late_request_of_a_replaced_sink_is_overwritten(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    """The first sink's request is delayed for longer than it takes to replace the sink, but not longer than a sink's
    requests may take.
    """
    rng, timeout = random.Random(22), {"TALLYSTREAM_PORT_TIMEOUT": "PT20S"}
    async with rig(kafka, prefix) as one:
        with sink(one, tmp_path, **timeout) as first:
            await active(first)
            with sink(one, tmp_path, **timeout) as second:
                await until(partial(_stands_by, second), "the second one stands by")
                one.sandbox.faults.add(Fault(match=BULK, kind="latency", seconds=18.0, times=1))
                await one.rows(make_row(rng, "s", HOUR, 1))
                await until(lambda: one.sandbox.faults.state()[0]["hit"], "its request is under way")
                first.signal(signal.SIGSTOP)
                await one.rows(make_row(rng, "s", HOUR, 2))
                await right(one)
                assert one.sandbox.store.writes, "the second sink has written the newer version"
                await until(lambda: bool(one.wrong_sessions()), "the first sink's request has overwritten it")
                await right(one)
                await until(lambda: second.metric("tallystream_sink_entities_resent_total"), "it is counted")


async def test_paused_sink_that_resumes_does_not_overwrite_newer_entities(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    rng = random.Random(23)
    async with rig(kafka, prefix) as one:
        version = 0

        async def change() -> None:
            nonlocal version
            while True:
                version += 1
                await one.rows(*(make_row(rng, f"s{number}", HOUR, version) for number in range(40)))
                await asyncio.sleep(0.05)

        with sink(one, tmp_path) as first:
            await active(first)
            with sink(one, tmp_path) as second:
                await until(lambda: _stands_by(second), "the second one stands by")
                changing = asyncio.create_task(change())
                sinks = [first, second]
                for _ in range(2):
                    writes = one.sandbox.store.writes
                    await until(partial(_written, one, writes + 60), "the active one writes")
                    paused, other = sinks
                    paused.signal(signal.SIGSTOP)
                    await active(other)
                    writes = one.sandbox.store.writes
                    await until(partial(_written, one, writes + 60), "the other one writes")
                    paused.signal(signal.SIGCONT)
                    await until(partial(_stands_by, paused), "the paused one has noticed")
                    sinks.reverse()
                changing.cancel()
                await right(one)
                assert not await one.letters()


async def _stands_by(one: SinkProcess) -> bool:
    return (await one.role()) == "standby"
