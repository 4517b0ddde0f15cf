"""`tallystream connections`, from creation to revocation, on real Kafka and against a gateway's HTTP answers."""

from __future__ import annotations

import asyncio
import json
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from aiokafka.admin import NewTopic
from tests.integration.cli.conftest import Cli
from tests.support.topics import create_topics, produce
from typing_extensions import override

from tallystream.schemas.connections import Activity, Connection
from tallystream.streams.kafka.admin import administering
from tallystream.streams.kafka.reader import latest
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka
URL = ("--endpoint-url", "https://tally.example")
OWN = "an-ingest-id_of-our-own"


def stored(kafka: KafkaSettings, topics: Topics) -> dict[str, Connection]:
    values = asyncio.run(latest(kafka, topics.connections.name))
    return {key.decode(): Connection.model_validate_json(value) for key, value in values.items()}


def test_create_prints_everything_a_client_needs(cli: Cli, kafka: KafkaSettings, topics: Topics) -> None:
    said = cli("connections", "create", "codex", "--name", "laptop", *URL, "--json")
    made = said.document
    assert list(made) == [
        "connection_id", "ingest_id", "base_url", "logs_url", "metrics_url", "traces_url", "grpc", "headers", "config",
    ]  # fmt: skip
    assert made["base_url"] == f"https://tally.example/api/v1/public/ingest/otel/codex/{made['ingest_id']}"
    assert made["logs_url"] == f"{made['base_url']}/v1/logs"
    otel = tomllib.loads(made["config"])["otel"]
    assert otel["exporter"]["otlp-http"]["endpoint"] == made["logs_url"]
    assert otel["trace_exporter"]["otlp-http"]["endpoint"] == made["traces_url"]
    assert otel["metrics_exporter"]["otlp-http"]["endpoint"] == made["metrics_url"]
    (connection,) = stored(kafka, topics).values()
    assert connection.connection_id == made["connection_id"]
    assert [key.sha256 for key in connection.ingest] == [sha256(made["ingest_id"].encode()).hexdigest()]
    assert (connection.name, connection.revoked_at) == ("laptop", None)


def test_create_shows_the_secret_once(cli: Cli) -> None:
    said = cli("connections", "create", "codex", "--id", OWN, *URL)
    assert said.code == 0
    assert "shown only this once" in " ".join(said.out.split())
    assert "~/.codex/config.toml" in said.out
    assert "tallystream cost sessions" in said.out
    assert "[otel]" in said.out
    for listed in (cli("connections", "list"), cli("connections", "list", "--json")):
        assert OWN not in listed.out
        assert sha256(OWN.encode()).hexdigest() not in listed.out


def test_create_without_a_known_gateway_assumes_its_url_with_a_warning(cli: Cli) -> None:
    said = cli("connections", "create", "codex", "--json")
    assert said.document["base_url"].startswith("http://127.0.0.1:4318/")
    assert "--endpoint-url" in said.err


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("nobody",), "codex, claude, gemini"),
        (("codex", "--id", "too-short"), "16 to 64"),
        (("codex", "--id", "x" * 65), "16 to 64"),
        (("codex", "--id", "slashes/are/not/allowed"), "16 to 64"),
        (("codex", "--name", "\x1b[2J"), "printable"),
        (("codex", "--name", ""), "printable"),
    ],
)
def test_create_explains_invalid_options(cli: Cli, args: tuple[str, ...], word: str) -> None:
    said = cli("connections", "create", *args, "--json")
    assert said.code == 2
    error = json.loads(said.err)
    assert error["code"] == "usage"
    assert word in error["message"] + error["hint"]


def test_ingest_id_cannot_be_issued_twice(cli: Cli) -> None:
    assert cli("connections", "create", "codex", "--id", OWN, *URL).code == 0
    again = cli("connections", "create", "claude", "--id", OWN, *URL)
    assert again.code == 2
    assert OWN not in again.err


def test_bearer_secret_is_shown_once_and_stored_as_a_hash(cli: Cli, kafka: KafkaSettings, topics: Topics) -> None:
    made = cli("connections", "create", "claude", "--bearer", *URL, "--json").document
    secret = made["headers"]["authorization"].removeprefix("Bearer ")
    assert made["headers"]["x-tallystream-connection"] == made["ingest_id"]
    (connection,) = stored(kafka, topics).values()
    assert connection.bearer_sha256 == sha256(secret.encode()).hexdigest()


def test_connection_can_be_rotated_and_revoked(cli: Cli, kafka: KafkaSettings, topics: Topics) -> None:
    made = cli("connections", "create", "codex", "--id", OWN, *URL, "--json").document
    name = made["connection_id"]
    rotated = cli("connections", "rotate", name, "--grace", "24h", *URL, "--json").document
    assert rotated["connection_id"] == name
    assert rotated["ingest_id"] != OWN
    new, old = stored(kafka, topics)[name].ingest
    assert new.sha256 == sha256(rotated["ingest_id"].encode()).hexdigest()
    assert new.expires_at is None
    assert old.sha256 == sha256(OWN.encode()).hexdigest()
    assert old.expires_at is not None
    left = old.expires_at - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(hours=24)
    (entry,) = cli("connections", "list", "--json").document["connections"]
    assert entry["state"] == "rotating"

    cli("connections", "rotate", name, "--grace", "7d", *URL)
    expiries = [key.expires_at for key in stored(kafka, topics)[name].ingest]
    assert expiries[2] == old.expires_at, "a second rotation does not prolong the first one's grace"

    assert cli("connections", "revoke", name).code == 0
    first = stored(kafka, topics)[name].revoked_at
    assert first is not None
    assert cli("connections", "revoke", name, "--json").document["state"] == "revoked"
    assert stored(kafka, topics)[name].revoked_at == first
    refused = cli("connections", "rotate", name, *URL)
    assert refused.code == 2
    assert "revoked" in refused.err
    assert cli("connections", "revoke", "codex-0000").code == 2


def test_last_synced_is_the_newest_time_of_all_gateways(cli: Cli, kafka: KafkaSettings, topics: Topics) -> None:
    name = cli("connections", "create", "codex", *URL, "--json").document["connection_id"]
    (never,) = cli("connections", "list", "--json").document["connections"]
    assert never["last_synced"] == {"logs": None, "metrics": None, "traces": None}

    def value(gateway: str, minute: int, requests: int) -> bytes:
        at = datetime(2026, 11, 21, 14, minute, tzinfo=UTC)
        one = Activity(
            connection_id=name, signal="logs", gateway=gateway, last_synced_at=at, requests=requests, records=1
        )
        return one.model_dump_json().encode()

    async def write() -> None:
        await ensure(kafka, (topics.activity,))
        found = [(b"g1", value("g1", 1, 1)), (b"g2", value("g2", 9, 5)), (b"g1", value("g1", 3, 2))]
        await produce(kafka, topics.activity.name, [(key, one, 0) for key, one in found])

    asyncio.run(write())
    (entry,) = cli("connections", "list", "--json").document["connections"]
    assert entry["last_synced"] == {"logs": "2026-11-21T14:09:00Z", "metrics": None, "traces": None}
    assert entry["requests"]["logs"] == 7
    assert name in cli("connections", "list").out


class GatewaySide(BaseHTTPRequestHandler):
    """Answers like the gateway: 200 for the known id, otherwise a google.rpc.Status."""

    asked: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.asked.append((self.path, body))
        known = OWN in self.path
        answer = b"{}" if known else b'{"code":5,"message":"no such connection"}'
        self.send_response(200 if known else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[str]:
    GatewaySide.asked.clear()
    with HTTPServer(("127.0.0.1", 0), GatewaySide) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_connection_test_sends_an_empty_request(cli: Cli, gateway: str) -> None:
    at = ("--endpoint-url", gateway)
    name = cli("connections", "create", "codex", "--id", OWN, *at, "--json").document["connection_id"]
    said = cli("connections", "test", OWN, *at)
    assert said.code == 0
    assert name in said.out
    assert OWN not in said.out
    assert cli("connections", "test", name, "--id", OWN, *at, "--json").document == {
        "connection_id": name, "ok": True, "status": 200, "message": "",
    }  # fmt: skip
    assert GatewaySide.asked == [(f"/api/v1/public/ingest/otel/codex/{OWN}/v1/logs", b'{"resourceLogs":[]}')] * 2


def test_refusal_of_the_gateway_is_explained(cli: Cli, gateway: str) -> None:
    said = cli("connections", "test", "an-id-that-nobody-issued", "--endpoint-url", gateway)
    assert said.code == 4
    assert "404: no such connection" in said.err
    away = cli("connections", "test", "an-id-that-nobody-issued", "--endpoint-url", "http://127.0.0.1:9")
    assert away.code == 3


def test_connection_test_needs_the_ingest_id(cli: Cli) -> None:
    name = cli("connections", "create", "codex", *URL, "--json").document["connection_id"]
    said = cli("connections", "test", name)
    assert said.code == 0
    assert "last synced: never" in said.out
    assert "--id INGEST_ID" in said.out
    other = cli("connections", "test", name, "--id", "a-secret-of-another-one", *URL)
    assert other.code == 4


def test_json_output_is_one_document_even_if_a_topic_is_corrected(
    kafka: KafkaSettings, topics: Topics, cli: Cli
) -> None:
    # A topic as an earlier version created it; `ensure` adds the missing setting and reports that.
    old = replace(topics.connections, config={"cleanup.policy": "compact"})
    made = NewTopic(old.name, old.partitions, 1, topic_configs=dict(old.config))

    async def create() -> None:
        async with administering(kafka) as admin:
            await create_topics(admin, made)

    asyncio.run(create())
    said = cli("connections", "create", "codex", "--json")
    assert json.loads(said.out)["ingest_id"]
    assert "topic_mended" in said.err
