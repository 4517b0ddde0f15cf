"""Spool files when prefixes or clusters change, volumes are shared, or files are locked."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from tests.integration.gateway.conftest import Deployment, deploy
from tests.integration.gateway.test_kafka_away import HEADERS, body, drained, ids_of, own, paused, post, serve
from tests.support.gateway import (
    INGEST_ID,
    PARTITIONS,
    SPOOLS_SOON,
    config_of,
    connection,
    event_ids,
    logs_path,
    read_topic,
    running,
    write,
)
from tests.support.topics import raise_partitions
from tests.support.waiting import until
from tests.unit.gateway.test_spool_slots import MESSAGE

from tallystream.schemas.connections import hash_secret
from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.gateway import GatewayConfig
from tallystream.streams.gateway.spool.file import Held, SpoolFile
from tallystream.streams.gateway.spool.inventory import inventory, recover
from tallystream.streams.gateway.spool.slots import slot_path, spools
from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics

__all__ = ["own"]
pytestmark = pytest.mark.kafka


async def spooled(broker: EmbeddedKafka, config: GatewayConfig, http: aiohttp.ClientSession, *bodies: bytes) -> None:
    """Leave acknowledged messages in the spool of a gateway that has ended."""
    with paused(broker):
        gateway, stop = await serve(config)
        for one in bodies:
            assert (await post(http, gateway, one)).status == 200
        assert gateway.spool.level.rows + gateway.spool.quarantine_level.rows == len(bodies)
        await stop()


async def met(config: GatewayConfig) -> None:
    """Let a gateway learn its connections."""
    async with running(config):
        pass


async def test_restart_with_a_locked_spool_loses_nothing(
    broker: EmbeddedKafka, own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    process = own.process(tmp_path / "data")
    process.start()
    try:
        await until(process.ready, "the gateway is ready")
        bodies = [body(number) for number in range(50)]
        with paused(broker):
            for one in bodies:
                async with http.post(process.url + logs_path(), data=one, headers=HEADERS) as response:
                    assert response.status == 200
            process.kill()
        (path,) = [one for one in spools(tmp_path / "data" / "gateway") if one.stat().st_size]
        with closing(sqlite3.connect(path, isolation_level=None)) as backup:
            backup.execute("PRAGMA locking_mode=EXCLUSIVE")
            backup.execute("BEGIN EXCLUSIVE")
            process.start()
            await until(process.ready, "it is ready beside the spool that is held")
            async with http.post(process.url + logs_path(), data=body(99), headers=HEADERS) as response:
                assert response.status == 200
            backup.execute("ROLLBACK")

        async def counted() -> bool:
            return set(await event_ids(own.kafka, own.topics)) == ids_of(*bodies, body(99))

        await until(counted, "everything that was answered 200 is counted")
    finally:
        process.end()


async def test_spool_of_another_prefix_is_kept_and_not_sent(
    broker: EmbeddedKafka, own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    before, after = own, await asyncio.to_thread(deploy, own.kafka)
    config = config_of(before.kafka, before.prefix, tmp_path)
    await met(config)
    await spooled(broker, config, http, body(1), body(2))
    async with running(replace(config, topics=after.topics)) as gateway:
        assert (await post(http, gateway, body(3))).status == 200
        await until(lambda: drained(gateway), "nothing of the other prefix is in its way")
        assert gateway.spool.surroundings.foreign_messages == 2
        assert gateway.healthy().ok
    assert set(await event_ids(after.kafka, after.topics)) == ids_of(body(3))
    async with running(config) as gateway:
        await until(lambda: drained(gateway), "the first deployment takes its own up again")
    assert set(await event_ids(before.kafka, before.topics)) == ids_of(body(1), body(2))


async def test_spool_of_another_cluster_is_sent_only_after_spool_recover(
    broker: EmbeddedKafka, own: Deployment, kafka: KafkaSettings, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    config = config_of(own.kafka, own.prefix, tmp_path)
    await met(config)
    await spooled(broker, config, http, body(1), body(2))
    # The test run's cluster differs from `own`; the prefix is the same.
    elsewhere = Deployment(kafka, own.prefix)
    await write(elsewhere.kafka, elsewhere.topics, connection())
    there = replace(config, kafka=elsewhere.kafka)
    async with running(there) as gateway:
        assert (await post(http, gateway, body(3))).status == 200
        assert gateway.spool.surroundings.foreign_messages == 2
    assert set(await event_ids(elsewhere.kafka, elsewhere.topics)) == ids_of(body(3))
    foreign = [one for one in inventory(config.directory, own.prefix) if one.messages]
    recover(config.directory, foreign[0].path.name, own.prefix, frozenset({own.topics.usage.name}))
    async with running(there) as gateway:
        await until(lambda: drained(gateway), "what was recovered is sent")
    assert set(await event_ids(elsewhere.kafka, elsewhere.topics)) == ids_of(body(1), body(2), body(3))


async def test_version_1_spool_with_two_prefixes_does_not_stop_draining(
    own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    config = config_of(own.kafka, own.prefix, tmp_path)
    config.directory.mkdir()
    mixed = SpoolFile(config.directory / "spool-0.db", max_bytes=1 << 20, quarantine_max_bytes=0)
    foreign = [MESSAGE._replace(topic="nobody.usage")] * 3
    mixed.put([*foreign, MESSAGE._replace(topic=own.topics.deadletters.name, value=b"{}"), *foreign], 1)
    mixed.close()
    async with running(config) as gateway:
        await until(lambda: drained(gateway), "our own row is sent")
        assert (await post(http, gateway, body(3))).status == 200
        await gateway.spool.look_around()
        assert gateway.spool.surroundings.foreign_messages == 6
    assert set(await event_ids(own.kafka, own.topics)) == ids_of(body(3))


async def test_gateways_of_two_deployments_can_share_a_volume(
    broker: EmbeddedKafka, own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    first, second = own, await asyncio.to_thread(deploy, own.kafka)
    configs = [config_of(one.kafka, one.prefix, tmp_path) for one in (first, second)]
    for config in configs:
        await met(config)
    for number, config in enumerate(configs):
        await spooled(broker, config, http, body(number))
    async with running(configs[0]) as one, running(configs[1]) as other:
        await until(lambda: drained(one) and drained(other), "both are drained")
    for number, deployed in enumerate((first, second)):
        assert set(await event_ids(deployed.kafka, deployed.topics)) == ids_of(body(number))


async def test_raised_partition_count_spools_requests_instead_of_refusing_them(
    own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    config = config_of(own.kafka, own.prefix, tmp_path, **SPOOLS_SOON)
    await met(config)
    async with opened(AIOKafkaAdminClient(**own.kafka.client())) as admin:
        await raise_partitions(
            admin, PARTITIONS + 1, own.topics.usage.name, own.topics.calls.name, own.topics.witness.name
        )
    async with running(config) as gateway:
        assert (await post(http, gateway, body(1))).status == 200
        assert gateway.ready().ok
        assert f"has {PARTITIONS + 1} partitions" in gateway.ready().why
        assert gateway.spool.level.rows == 1
    mended = replace(config, topics=Topics(own.prefix, PARTITIONS + 1))
    async with running(mended) as gateway:
        await until(lambda: drained(gateway), "it is sent once the setting follows")
    assert set(await event_ids(own.kafka, mended.topics)) == ids_of(body(1))


async def test_quarantined_request_of_another_version_becomes_a_dead_letter(
    own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    config = config_of(own.kafka, own.prefix, tmp_path)
    config.directory.mkdir()
    file = SpoolFile(slot_path(config.directory, own.prefix, 0), max_bytes=1 << 20, quarantine_max_bytes=1 << 20)
    file.belong(own.prefix, "")
    digest = "ab" * 32
    strange: list[dict[str, object]] = [
        {"version": 9, "digest": digest, "packs": []},
        {"digest": digest, "records": 1, "rejected": [], "packs": [{"field_of_tomorrow": 1}]},
        {"digest": digest, "records": 1},
    ]
    payloads = [b"not json", *(json.dumps(one).encode() for one in strange)]
    for payload in payloads:
        file.hold(Held(0, 1, hash_secret(INGEST_ID), "codex", None, payload))
    good = {"version": 1, "digest": "cd" * 32, "undecodable": {"detail": "as it was said then", "size": 7}}
    file.hold(Held(0, 1, hash_secret(INGEST_ID), "codex", None, json.dumps(good).encode()))
    file.close()
    async with running(config) as gateway:
        await until(lambda: drained(gateway), "everything in quarantine is judged")
        assert gateway.healthy().ok
    letters = [letter for _, letter in await read_topic(own.kafka, own.topics.deadletters)]
    assert [one["reason"] for one in letters] == ["invalid_message"] * 4 + ["undecodable"]
    assert {one["connection_id"] for one in letters} == {"codex-7f3a"}
    assert [one["size"] for one in letters] == [*map(len, payloads), 7]
    assert [one["record"] for one in letters[1:4]] == strange
