"""Spools of other owners: if a gateway takes what is not its own, the oracle reports losses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.chaos.load import Fleet, Fleetwise
from tests.chaos.test_spool_mishaps import REQUESTS, broker, counting, differences
from tests.integration.gateway.test_kafka_away import drained, paused, serve
from tests.support.gateway import INGEST_ID, config_of, running
from tests.support.waiting import until

from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.gateway import Gateway
from tallystream.streams.gateway.spool import slots
from tallystream.streams.gateway.spool.files import SpoolFiles
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.service.locks import ProcessLock

__all__ = ["broker"]
pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(900)]


class Unlocked(ProcessLock):
    """A lock that everybody gets."""

    def acquire(self, wait: float = 0.0) -> bool:
        self.path.touch()
        return True

    def release(self) -> None:
        """There is nothing to release."""


async def acknowledged(gateway: Gateway, seed: int) -> Fleet:
    """Send a fleet's requests, all of which are answered with 200."""
    fleet = Fleet(gateway.url, INGEST_ID, Fleetwise(200.0, seed, agents=3, requests=REQUESTS))
    fleet.start()
    await until(lambda: fleet.report.complete, "all requests are answered")
    await asyncio.to_thread(fleet.stop)
    assert fleet.truth.http["200"] == fleet.report.bodies > 0
    return fleet


@pytest.mark.parametrize("safeguard", ["kept", "removed"])
async def test_gateway_on_another_cluster_and_back_loses_nothing(
    broker: EmbeddedKafka,
    kafka: KafkaSettings,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    safeguard: str,
) -> None:
    if safeguard == "removed":  # any spool of the prefix is taken, whichever cluster it names
        monkeypatch.setattr(SpoolFiles, "_is_ours", lambda *_: True)
    async with (
        counting(broker.settings, prefix, tmp_path / "here") as here,
        counting(kafka, prefix, tmp_path / "there") as there,
    ):
        config = config_of(broker.settings, prefix, tmp_path, topics=here.topics)
        async with running(config):
            pass  # it learns its connections
        with paused(broker):
            gateway, stop = await serve(config)
            first = await acknowledged(gateway, 3)
            await stop()
        async with running(replace(config, kafka=kafka)) as gateway:
            second = await acknowledged(gateway, 4)
            await until(lambda: drained(gateway), "it has sent what it may send")
        async with running(config) as gateway:
            await until(lambda: drained(gateway), "what was spooled is sent")
        wrong = await differences(here, first), await differences(there, second)
    if safeguard == "kept":
        assert wrong == ([], [])
    else:
        assert [one for one in wrong[0] if "missing" in one], wrong


@pytest.mark.parametrize("safeguard", ["kept", "removed"])
async def test_two_gateways_on_one_volume_lose_nothing(
    broker: EmbeddedKafka, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safeguard: str
) -> None:
    """The first one ends with a full spool, is started again, and drains what it finds while the second one spools."""
    if safeguard == "removed":
        monkeypatch.setattr(slots, "ProcessLock", Unlocked)
    async with counting(broker.settings, prefix, tmp_path) as here:
        config = config_of(broker.settings, prefix, tmp_path, topics=here.topics)
        async with running(config):
            pass
        first, stop_first = await serve(config)
        second, stop_second = await serve(config)
        with paused(broker):
            fleets = [await acknowledged(first, 3)]
            await stop_first()
        async with running(config) as first:
            await until(lambda: drained(first), "what it left is sent")
            with paused(broker):
                fleets.append(await acknowledged(second, 4))
                await stop_second()
            await first.spool.look_around()
            await until(lambda: drained(first), "what the second one left is sent")
        wrong = await differences(here, *fleets)
    if safeguard == "kept":
        assert wrong == []
    else:
        assert [one for one in wrong if "missing" in one], wrong
