"""A spool that cannot be opened at the gateway's start: if the gateway sets it aside, the oracle reports losses."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, nullcontext
from pathlib import Path

import orjson
import pytest
from tests.chaos.disks import filled
from tests.chaos.hand import World, world
from tests.chaos.load import Fleet, Fleetwise
from tests.integration.gateway.test_kafka_away import drained, paused, serve
from tests.support.disks import small_disk
from tests.support.gateway import INGEST_ID, config_of, connection, running, write
from tests.support.open_kafka import OpenKafka
from tests.support.waiting import until

from tallystream.agents.cost_query import Query
from tallystream.agents.cost_table import Table
from tallystream.simulator import compare
from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.gateway.errors import SpoolWriteError
from tallystream.streams.gateway.spool.file import SpoolFile
from tallystream.streams.gateway.spool.files import PATIENCE, SpoolFiles
from tallystream.streams.gateway.spool.slots import Slot, spools
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(900)]
REQUESTS = 30
DISK_MB = 8


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """Provide a broker that the tests of this file may stop."""
    with OpenKafka(tmp_path_factory.mktemp("kafka")) as own:
        yield own


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Lock the spool files as a backup does."""
    (path,) = [one for one in spools(directory) if one.stat().st_size]
    with closing(sqlite3.connect(path, isolation_level=None)) as backup:
        backup.execute("PRAGMA locking_mode=EXCLUSIVE")
        backup.execute("BEGIN EXCLUSIVE")
        yield
        backup.execute("ROLLBACK")


def sets_aside(files: SpoolFiles, slot: Slot) -> SpoolFile | None:
    """Open a spool file, and set it aside whatever is the reason that it cannot be opened."""
    try:
        return SpoolFile(slot.path, max_bytes=1 << 24, quarantine_max_bytes=1 << 20, patience=PATIENCE)
    except SpoolWriteError:
        slot.set_aside()
        return None


@asynccontextmanager
async def counting(kafka: KafkaSettings, prefix: str, folder: Path) -> AsyncIterator[World]:
    async with world(kafka, prefix, folder / "workers") as here:
        await write(kafka, here.topics, connection())
        yield here


async def differences(here: World, *fleets: Fleet) -> list[str]:
    """Count everything; return where the tables differ from what was acknowledged."""
    await here.worked()
    table = Table(Query("session-hours"))
    table.add(orjson.dumps(row) for row in (await here.ledger()).rows.values())
    rows = list(table.rows(time.time_ns()))
    return [str(one) for fleet in fleets for one in compare(fleet.truth, rows)] + await here.problems()


@pytest.mark.parametrize("safeguard", ["kept", "removed"])
@pytest.mark.parametrize("mishap", ["held", "full disk"])
async def test_acknowledged_requests_survive_a_spool_that_cannot_be_opened(
    broker: EmbeddedKafka, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mishap: str, safeguard: str
) -> None:
    directory = tmp_path / "gateway"
    kafka = broker.settings
    with small_disk(directory, DISK_MB) if mishap == "full disk" else nullcontext():
        async with counting(kafka, prefix, tmp_path) as here:
            config = config_of(kafka, prefix, tmp_path, topics=here.topics)
            async with running(config):
                pass  # it learns its connections
            with paused(broker):
                gateway, stop = await serve(config)
                fleet = Fleet(gateway.url, INGEST_ID, Fleetwise(200.0, 3, agents=3, requests=REQUESTS))
                fleet.start()
                await until(lambda: fleet.report.complete, "all requests are answered")
                await asyncio.to_thread(fleet.stop)
                assert fleet.truth.http["200"] == fleet.report.bodies > 0
                await stop()
            if safeguard == "removed":
                monkeypatch.setattr(SpoolFiles, "_opened", sets_aside)
            with held(directory) if mishap == "held" else filled(directory):
                context = running(config)
                gateway = await context.__aenter__()
            try:
                await gateway.spool.look_around()
                assert gateway.spool.surroundings.unopened == 0
                await until(lambda: drained(gateway), "what was spooled is sent")
            finally:
                await context.__aexit__(None, None, None)
            wrong = await differences(here, fleet)
            if safeguard == "kept":
                assert wrong == []
            else:
                assert [one for one in wrong if "missing" in one], wrong
