"""`tallystream wait --caught-up` with a Port sink and a poller: when it succeeds, everything is in Port."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.chaos.test_openai_days import world
from tests.integration.cli.conftest import Cli
from tests.integration.cli.test_wait import SHORT, Watch
from tests.support.port_rig import make_row, rig, sink
from tests.support.waiting import PATIENCE, until

from tallystream.agents.openai_days import OpenAIDays
from tallystream.cli.commands.catch_up import Places, catch_up
from tallystream.components.harness import reporter
from tallystream.sandbox import Fault
from tallystream.schemas.errors import UnreachableError
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.credentials import ApiKey, ApiKeys
from tallystream.streams.poller.service import Poller
from tallystream.streams.service.ops import OpsServer

pytestmark = pytest.mark.kafka
HOUR = "2026-11-21T13:00:00Z"


async def test_wait_covers_entities_missing_in_port(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    rng, watch = random.Random(61), Watch()
    async with rig(kafka, prefix) as one:
        wait = partial(catch_up, kafka, one.topics, seconds=PATIENCE, show=watch.note)
        await one.rows(*(make_row(rng, f"s{number}", HOUR, 1) for number in range(300)))
        with sink(one, tmp_path) as running:
            find = partial(Places, sinks={"sink": f"http://127.0.0.1:{running.port}"})
            # at the very start: nothing has been read, and no sink is active yet
            await wait(find)
            assert not one.wrong_sessions()
            assert any("no sink writes to Port yet" in said for said in watch.said)
            assert len(one.expected_sessions()) == 300

            one.sandbox.faults.add(Fault(match="entities/bulk", kind="status", status=503))
            await one.rows(*(make_row(rng, f"s{number}", HOUR, 2) for number in range(300)))
            waiting = asyncio.create_task(wait(find))
            await watch.until("entities on their way to Port")
            one.sandbox.faults.clear()
            # a request without an answer may take effect until its timeout, and is repeated then
            one.sandbox.faults.add(Fault(match="entities/bulk", kind="reset", after=True, times=1))
            await watch.until("requests with unknown outcome")
            assert not waiting.done()
            await waiting
            assert not one.wrong_sessions()

            # a standby that is checked as well does not change the result
            with sink(one, tmp_path) as standby:
                await until(standby.role, "it answers")
                await one.rows(*(make_row(rng, f"s{number}", HOUR, 3) for number in range(300)))
                both = Places(sinks={"sink": f"http://127.0.0.1:{running.port}",
                                     "sink-2": f"http://127.0.0.1:{standby.port}"})  # fmt: skip
                await wait(lambda: both)
                assert not one.wrong_sessions()


async def test_wait_covers_openai_days(kafka: KafkaSettings, prefix: str) -> None:
    watch = Watch()
    async with world(kafka, prefix) as here:
        await ensure(kafka, here.topics.all())
        for day in range(5):
            await here.say(day)
        tokens = ApiKeys({"api": ApiKey("sk-test")})
        poller = Poller(PollerConfig(kafka, here.topics, (), tokens), CollectorRegistry())
        server = OpsServer(poller.healthy, poller.ready, status=reporter("poller", poller))
        await server.start()
        find = partial(Places, pollers={"poller": server.url})
        waiting = asyncio.create_task(catch_up(kafka, here.topics, find, seconds=PATIENCE, show=watch.note))
        await watch.until("10 of OpenAI's records are not in")
        agent = asyncio.create_task(OpenAIDays(kafka, here.topics, poller.days_done).run())
        try:
            await waiting
            assert not await here.wrong()
        finally:
            agent.cancel()
            await asyncio.gather(agent, return_exceptions=True)
            await server.stop()


async def test_sink_without_access_to_port_is_not_caught_up(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with rig(kafka, prefix) as one:
        one.sandbox.faults.add(Fault(match="access_token", kind="status", status=401))
        with sink(one, tmp_path) as running:
            find = partial(Places, sinks={"sink": f"http://127.0.0.1:{running.port}"})
            await until(running.role, "it answers")
            with pytest.raises(UnreachableError, match="no sink writes to Port yet; the sink's /readyz says why"):
                await catch_up(kafka, one.topics, find, seconds=SHORT, show=lambda _: None)


async def test_wait_checks_the_named_sinks(cli: Cli, kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with rig(kafka, prefix) as one:
        with sink(one, tmp_path) as running:
            await until(lambda: running.metric("tallystream_sink_sweeps_total"), "it writes")
            said = await asyncio.to_thread(cli, "wait", "--caught-up", "--json")
            assert said.document["sinks"] == 0
            assert "A Port sink runs elsewhere" in said.err
            said = await asyncio.to_thread(
                cli, "wait", "--caught-up", "--json", "--sink-ops", f"http://127.0.0.1:{running.port}"
            )
            assert said.document["sinks"] == 1
            assert "runs elsewhere" not in said.err
