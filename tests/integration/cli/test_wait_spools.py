"""`tallystream wait --caught-up` beside spool files that no gateway sends."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path

import pytest
from tests.integration.cli.conftest import Cli
from tests.integration.cli.test_wait import commit
from tests.support.gateway import GatewayProcess, connection, event_ids, logs_path, write
from tests.support.otlp_bodies import Group, codex_response, encode
from tests.support.product import free_port
from tests.support.waiting import eventually

from tallystream.schemas.otlp import Encoding
from tallystream.streams.gateway.spool.inventory import inventory, recover
from tallystream.streams.kafka.reader import TopicReader
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka


def gateway(kafka: KafkaSettings, topics: Topics, directory: Path) -> GatewayProcess:
    return GatewayProcess(kafka, topics.prefix, directory, TALLYSTREAM_PARTITIONS=str(topics.partitions))


async def count(kafka: KafkaSettings, topics: Topics) -> None:
    """Commit the end of `usage`, as a worker does that has counted everything."""
    async with TopicReader(kafka, topics.usage.name) as reader:
        await commit(kafka, topics, dict(reader.extent.end))


def test_messages_acknowledged_under_a_mistyped_address_are_not_called_caught_up(
    cli: Cli, kafka: KafkaSettings, topics: Topics, tmp_path: Path
) -> None:
    async def deploy() -> None:
        await ensure(kafka, topics.all())
        await write(kafka, topics, connection())

    asyncio.run(deploy())
    mistyped = gateway(KafkaSettings(f"127.0.0.1:{free_port()}"), topics, tmp_path)
    mistyped.start()
    try:
        eventually(mistyped.ready_port, "it listens")
        body = encode([Group([codex_response("session")])], Encoding.JSON)
        request = urllib.request.Request(mistyped.url + logs_path(), body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.status == 200
        mistyped.kill()
    finally:
        mistyped.end()
    right = gateway(kafka, topics, tmp_path)

    def wait() -> str:
        """Return what `wait` says when it exits with 4, and nothing when everything is counted."""
        said = cli("wait", "--caught-up", "--json", "--gateway-ops", f"http://127.0.0.1:{right.ops_port}")
        assert said.code in (0, 4), said.err
        return str(json.loads(said.err.splitlines()[-1])["message"]) if said.code else ""

    right.start()
    try:
        eventually(right.ready, "it is ready")
        assert "1 acknowledged messages are in spools of another prefix, cluster or Kafka address" in wait()
        spools = tmp_path / "gateway"
        (listed,) = [one for one in inventory(spools, topics.prefix) if one.held]
        assert recover(spools, listed.path.name, topics.prefix, frozenset()).held == 1
        right.kill()
        right.start()  # sooner than its next look
        eventually(right.ready, "it is ready again")
        found = eventually(lambda: asyncio.run(event_ids(kafka, topics)), "what was recovered is sent")
        assert len(found) == 1
        asyncio.run(count(kafka, topics))
        assert wait() == ""
    finally:
        right.end()
