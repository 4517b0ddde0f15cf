"""Kafka stops answering or is unavailable from the start: every request is answered 200, and nothing is lost or
duplicated.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tests.integration.gateway.conftest import GUARDED_ID, REVOKED_ID, Deployment, deploy
from tests.support.gateway import (
    BEARER,
    SPOOLS_SOON,
    config_of,
    connection,
    event_ids,
    logs_path,
    read_topic,
    running,
    write,
)
from tests.support.otlp_bodies import AT_NS, Group, codex_noise, codex_response, encode
from tests.support.otlp_points import codex, encode_points
from tests.support.waiting import PATIENCE, until

from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.otlp import Encoding
from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.gateway import Gateway, GatewayConfig

pytestmark = pytest.mark.kafka
HEADERS = {"Content-Type": "application/json"}


def body(number: int, session: str = "") -> bytes:
    session = session or f"session-{number % 7}"
    return encode([Group([*codex_noise(session), codex_response(session, at_ns=AT_NS + number)])], Encoding.JSON)


def ids_of(*bodies: bytes) -> set[str]:
    packs = [pack for one in bodies for pack in normalise_logs(one, Encoding.JSON).packs]
    return {event["event_id"] for pack in packs for event in pack.events}


@contextmanager
def paused(broker: EmbeddedKafka) -> Iterator[None]:
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.pid, signal.SIGCONT)


@pytest.fixture
def own(broker: EmbeddedKafka) -> Deployment:
    return deploy(broker.settings)


class Load:
    """Posts bodies continuously; `answers` has the statuses, `sent` the bodies."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url + logs_path()
        self.answers: list[int] = []
        self.sent: list[bytes] = []

    @asynccontextmanager
    async def running(self, rate: int = 50) -> AsyncIterator[Load]:
        stop = asyncio.Event()

        async def go() -> None:
            async with asyncio.TaskGroup() as group:
                while not stop.is_set():
                    group.create_task(self._one(body(len(self.sent))))
                    await asyncio.sleep(1 / rate)

        task = asyncio.create_task(go())
        try:
            yield self
        finally:
            stop.set()
            await task

    async def _one(self, content: bytes) -> None:
        self.sent.append(content)
        async with self._http.post(self._url, data=content, headers=HEADERS) as response:
            await response.read()
            self.answers.append(response.status)

    async def more(self, count: int) -> None:
        goal = len(self.answers) + count
        await until(lambda: len(self.answers) >= goal, f"{count} more answers")


def drained(gateway: Gateway) -> bool:
    return not (gateway.spool.level.rows or gateway.spool.quarantine_level.rows) and gateway.link.live


async def test_no_batch_is_lost_while_kafka_is_paused_under_load(
    broker: EmbeddedKafka, own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    config = config_of(own.kafka, own.prefix, tmp_path, stuck_after=2.0, **SPOOLS_SOON)
    async with running(config) as gateway:
        async with Load(http, gateway.url).running() as load:
            await load.more(20)
            with paused(broker):
                await until(lambda: gateway.spool.level.rows > 20, "the spool takes over")
                await until(lambda: not gateway.link.connected, "the stuck producer is thrown away")
                await load.more(20)
            await until(lambda: drained(gateway), "the spool is drained while requests go on")
            await load.more(20)
        assert set(load.answers) == {200}
    found = await event_ids(own.kafka, own.topics)
    assert set(found) == ids_of(*load.sent)
    assert len(set(found)) == len(load.sent)


async def test_short_kafka_pause_causes_no_duplicates(
    broker: EmbeddedKafka, own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    # However long the pause is on a busy machine, its producer must not be replaced, which could send twice.
    config = config_of(own.kafka, own.prefix, tmp_path, stuck_after=2 * PATIENCE, **SPOOLS_SOON)
    async with running(config) as gateway:
        async with Load(http, gateway.url).running() as load:
            await load.more(5)
            with paused(broker):
                await until(lambda: gateway.spool.level.rows > 20, "the spool takes over")
            await until(lambda: drained(gateway), "the spool is drained")
        assert set(load.answers) == {200}
    assert sorted(await event_ids(own.kafka, own.topics)) == sorted(ids_of(*load.sent))


async def test_no_batch_is_lost_when_kafka_is_killed_under_load(
    broker: EmbeddedKafka, own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with running(config_of(own.kafka, own.prefix, tmp_path, **SPOOLS_SOON)) as gateway:
        async with Load(http, gateway.url).running() as load:
            await load.more(20)
            os.kill(broker.pid, signal.SIGKILL)
            await until(lambda: gateway.spool.level.rows > 20, "the spool takes over")
            await asyncio.to_thread(broker.stop)
            await asyncio.to_thread(broker.start)
            await until(lambda: drained(gateway), "the spool is drained")
            await load.more(20)
        assert set(load.answers) == {200}
    assert set(await event_ids(own.kafka, own.topics)) == ids_of(*load.sent)


async def test_gateway_started_without_kafka_authenticates_and_spools(
    broker: EmbeddedKafka, own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    config = config_of(own.kafka, own.prefix, tmp_path)
    async with running(config) as gateway:
        assert (await post(http, gateway, body(1))).status == 200
    with paused(broker):
        gateway, stop = await serve(config)
        async with http.get(f"{gateway.url}/readyz") as response:
            assert response.status == 200
        assert (await post(http, gateway, body(2))).status == 200
        assert (await post(http, gateway, b"{broken")).status == 400
        assert (gateway.spool.level.rows, gateway.spool.quarantine_level.rows) == (2, 0)
        await stop()
    async with running(config) as gateway:
        await until(lambda: drained(gateway), "the spool is drained")
    assert set(await event_ids(own.kafka, own.topics)) == ids_of(body(1), body(2))
    letters = [letter for _, letter in await read_topic(own.kafka, own.topics.deadletters)]
    assert [(letter["reason"], letter["size"]) for letter in letters] == [("undecodable", 7)]


async def serve(config: GatewayConfig) -> tuple[Gateway, Callable[[], Awaitable[Any]]]:
    """Start a gateway whose Kafka is unavailable; return it and a function that stops it."""
    soon, latest = SPOOLS_SOON["ack_timeout"], SPOOLS_SOON["ack_timeout_max"]
    context = running(replace(config, first_contact=0.1, ack_timeout=soon, ack_timeout_max=latest))
    return await context.__aenter__(), lambda: context.__aexit__(None, None, None)


async def post(
    http: aiohttp.ClientSession, gateway: Gateway, content: bytes, path: str = "", **headers: str
) -> aiohttp.ClientResponse:
    url = gateway.url + (path or logs_path())
    async with http.post(url, data=content, headers=HEADERS | headers) as response:
        await response.read()
        return response


async def test_unknown_connections_are_quarantined_until_kafka_is_back(
    broker: EmbeddedKafka, own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    config = config_of(own.kafka, own.prefix, tmp_path)
    bearer = {"Authorization": f"Bearer {BEARER}"}
    user = Group([codex_response("named").having(user__email="ada@example.com")])
    metrics = encode_points([codex("input", 900.0)], Encoding.JSON)
    with paused(broker):
        gateway, stop = await serve(config)
        assert not gateway.registry.known
        async with http.get(f"{gateway.url}/readyz") as response:
            assert response.status == 503
        assert (await post(http, gateway, body(1))).status == 200
        assert (await post(http, gateway, body(2), logs_path("guessed"))).status == 200
        assert (await post(http, gateway, body(3), logs_path(REVOKED_ID))).status == 200
        assert (await post(http, gateway, body(4), logs_path(GUARDED_ID), **bearer)).status == 200
        assert (await post(http, gateway, body(5), logs_path(GUARDED_ID))).status == 200
        assert (await post(http, gateway, encode([user], Encoding.JSON))).status == 200
        assert (await post(http, gateway, b"{broken")).status == 400
        for path in (logs_path(signal_="metrics"), logs_path("guessed", signal_="metrics")):
            assert (await post(http, gateway, metrics, path)).status == 200
        assert (gateway.spool.level.rows, gateway.spool.quarantine_level.rows) == (0, 9)
        on_disk = b"".join(file.read_bytes() for file in sorted(config.directory.iterdir()))
        await stop()
    for secret in (b"guessed", REVOKED_ID.encode(), BEARER.encode(), b"ada@example.com", b"{broken", b"canary"):
        assert secret not in on_disk
    async with running(config) as gateway:
        await until(lambda: drained(gateway), "what was held is judged")
    batches = [batch for _, batch in await read_topic(own.kafka, own.topics.usage)]
    counted = {event["event_id"] for batch in batches for event in batch["events"]}
    assert counted == ids_of(body(1), body(4), encode([user], Encoding.JSON))
    assert {batch["connection_id"] for batch in batches} == {"codex-7f3a", "codex-9a11"}
    users = {user for batch in batches if (user := batch["attribution"].get("user"))}
    assert [len(name) for name in users] == [18]
    letters = [letter for _, letter in await read_topic(own.kafka, own.topics.deadletters)]
    refused = {letter["record"]["event_id"] for letter in letters if letter["reason"] == "unknown_connection"}
    assert refused == ids_of(body(2), body(3), body(5))
    assert [letter["connection_id"] for letter in letters if letter["reason"] == "undecodable"] == ["codex-7f3a"]
    witnesses = [
        (key, batch["statements"][0]["input"]) for key, batch in await read_topic(own.kafka, own.topics.witness)
    ]
    assert witnesses == [(b"codex-7f3a|", 900)]


async def test_full_quarantine_gets_503_and_known_connections_are_served(
    broker: EmbeddedKafka, own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    config = config_of(own.kafka, own.prefix, tmp_path, quarantine_max_bytes=2_000, **SPOOLS_SOON)
    async with running(config) as gateway:
        with paused(broker):
            await post(http, gateway, body(0))
            statuses = [(await post(http, gateway, body(n), logs_path(f"guess-{n}"))).status for n in range(1, 12)]
            assert statuses[0] == 200
            assert statuses[-1] == 503
            assert (await post(http, gateway, body(12))).status == 200
        await until(lambda: drained(gateway), "everything is judged")
    assert ids_of(body(0), body(12)) == set(await event_ids(own.kafka, own.topics))


@asynccontextmanager
async def disk_filled(gateway: Gateway) -> AsyncIterator[None]:
    """Let the spool file grow by only three pages and prevent other files, as on a full disk."""

    def limit() -> None:
        files = gateway.spool._files
        assert files.own is not None
        database = files.open[files.own].file._db
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages + 3}")

    directory = gateway.spool.path.parent
    await gateway.spool._run(limit)
    moved = directory.rename(directory.with_name("moved"))
    directory.touch()
    try:
        yield
    finally:
        directory.unlink()
        moved.rename(directory)


@pytest.mark.parametrize("trouble", ["full spool", "full disk"])
async def test_request_without_durable_storage_gets_503(
    broker: EmbeddedKafka, own: Deployment, http: aiohttp.ClientSession, tmp_path: Path, trouble: str
) -> None:
    limit = 5_000 if trouble == "full spool" else 1 << 30
    config = config_of(own.kafka, own.prefix, tmp_path, spool_max_bytes=limit, **SPOOLS_SOON)
    async with running(config) as gateway:
        accepted: list[bytes] = []
        with paused(broker):
            answers = []
            async with disk_filled(gateway) if trouble == "full disk" else nullcontext():
                for number in range(60):
                    response = await post(http, gateway, body(number))
                    answers.append(response.status)
                    if response.status == 200:
                        accepted.append(body(number))
            assert answers[0] == 200
            assert answers[-1] == 503
            assert response.headers["Retry-After"] == "5"
            assert set(answers) == {200, 503}
        await until(lambda: drained(gateway), "the spool is drained")
        assert (await post(http, gateway, body(99))).status == 200
    found = set(await event_ids(own.kafka, own.topics))
    assert found >= ids_of(*accepted, body(99)), "something that was answered 200 is missing"
    assert found <= ids_of(*map(body, range(60)), body(99))


async def test_new_ingest_id_works_at_once_and_guesses_cause_few_kafka_requests(
    own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with running(config_of(own.kafka, own.prefix, tmp_path)) as gateway:
        await write(own.kafka, own.topics, connection("codex", "made-just-now", connection_id="codex-0001"))
        assert (await post(http, gateway, body(1), logs_path("made-just-now"))).status == 200
        guesses = [post(http, gateway, body(2), logs_path(f"guess-{number}")) for number in range(300)]
        assert {response.status for response in await asyncio.gather(*guesses)} == {404}
        value = gateway.metrics.registry.get_sample_value
        assert (value("tallystream_gateway_registry_refreshes_total", {"outcome": "caught_up"}) or 0) < 60
    assert (
        json.loads((tmp_path / "gateway" / f"connections-{own.prefix}.json").read_text())["topic"]
        == own.topics.connections.name
    )


async def set_limit(own: Deployment, size: int) -> None:
    """Set the size of a message that the usage topic takes at most."""
    admin = AIOKafkaAdminClient(**own.kafka.client())
    await admin.start()
    configs = own.topics.usage.config | {"max.message.bytes": str(size)}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, own.topics.usage.name, configs=configs)])
    await admin.close()


async def test_message_refused_by_kafka_stays_spooled_without_blocking_others(
    own: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    def large(number: int) -> bytes:
        times = range(AT_NS + 1000 * number, AT_NS + 1000 * number + 40)
        return encode([Group([codex_response("large", at_ns=at) for at in times])], Encoding.JSON)

    refused: list[bytes] = []
    small = [body(number) for number in range(10)]
    async with running(config_of(own.kafka, own.prefix, tmp_path, **SPOOLS_SOON)) as gateway:

        async def one_is_refused() -> bool:
            # The broker applies a new limit some time after it has confirmed it.
            refused.append(large(len(refused)))
            assert (await post(http, gateway, refused[-1])).status == 200
            return bool(gateway.metrics.registry.get_sample_value("tallystream_gateway_rejected_messages_total"))

        async def others_arrive() -> bool:
            return set(await event_ids(own.kafka, own.topics)) >= ids_of(*small)

        async def all_are_taken() -> bool:
            gateway.retry_rejected()
            return gateway.spool.level.rows == 0

        await set_limit(own, 4_000)
        await until(one_is_refused, "a large one is sorted out")
        for one in small:
            assert (await post(http, gateway, one)).status == 200
        await until(others_arrive, "the others are drained")
        assert gateway.spool.level.rows >= 1
        await until(lambda: gateway.link.live, "Kafka is used again")
        await set_limit(own, 1_000_000)
        await until(all_are_taken, "the large ones are taken after all")
    assert set(await event_ids(own.kafka, own.topics)) == ids_of(*refused, *small)
