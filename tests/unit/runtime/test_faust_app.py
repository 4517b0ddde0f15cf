"""The Faust app before its start: batches, health, credentials."""

from __future__ import annotations

import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from faust.types import TP
from mode import Service
from tests.support.counting import CountsTable, EndedError, WorkerConfig, build, ended

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.runtime.faust_backend import App
from tallystream.streams.runtime.faust_backend.app import credentials
from tallystream.streams.runtime.faust_backend.batches import MAX_RECORDS, BatchScheduler
from tallystream.streams.runtime.membership import Membership


class Hand:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_batches_contain_all_records_in_order() -> None:
    records = [SimpleNamespace(topic="t", partition=1, offset=n, timestamp=n) for n in range(2 * MAX_RECORDS + 1)]
    batches = list(BatchScheduler().iterate({TP("t", 1): records, TP("t", 2): []}))
    assert [record for _, batch in batches for record in batch.value] == records
    assert [len(batch.value) for _, batch in batches] == [MAX_RECORDS, MAX_RECORDS, 1]
    assert [batch.offset for _, batch in batches] == [MAX_RECORDS - 1, 2 * MAX_RECORDS - 1, 2 * MAX_RECORDS]


async def test_app_that_never_joins_is_not_ready_and_becomes_unhealthy(tmp_path: Path) -> None:
    app, _ = build(WorkerConfig("127.0.0.1:1", "unit", 2, str(tmp_path), "", store="memory"), exit=ended)
    assert not app.ready().ok
    assert app.healthy().ok
    app.context.membership = Membership(2.0, clock := Hand())
    clock.now += 1000
    assert "no heartbeat" in app.healthy().why


async def test_rows_change_only_through_fold(table: CountsTable) -> None:
    for change in (lambda: table.on_key_set(b"k", b"v"), lambda: table.on_key_del(b"k"), lambda: table.data[b"k"]):
        with pytest.raises(TypeError):
            change()


async def test_every_kafka_client_uses_the_same_credentials(tmp_path: Path) -> None:
    """Faust's consumer and producer use its settings, recovery's reader uses ours."""
    kafka = KafkaSettings("h:1,i:2", "SASL_SSL", "SCRAM-SHA-256", "user", "password")
    app = App("unit", kafka, datadir=tmp_path, partitions=2)
    ours = kafka.client()
    consumer = credentials_to_aiokafka_auth(app.conf.broker_credentials, app.conf.ssl_context)
    for name in ("security_protocol", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password"):
        assert consumer[name] == ours[name]
    assert isinstance(consumer["ssl_context"], ssl.SSLContext)
    producer: Any = app.producer
    assert producer._settings_auth() == consumer
    assert producer._settings_default()["bootstrap_servers"] == ["h:1", "i:2"]


def test_credentials_are_converted_for_faust() -> None:
    assert credentials(KafkaSettings("h:1")) is None
    assert isinstance(credentials(KafkaSettings("h:1", "SSL")), SSLCredentials)
    for protocol, mechanism in (("SASL_SSL", "SCRAM-SHA-512"), ("SASL_PLAINTEXT", "PLAIN")):
        found = credentials(KafkaSettings("h:1", protocol, mechanism, "user", "password"))
        assert isinstance(found, SASLCredentials)
        assert (found.protocol.value, found.mechanism.value) == (protocol, mechanism)
        assert (found.username, found.password) == ("user", "password")
        assert isinstance(found.ssl_context, ssl.SSLContext) is protocol.endswith("SSL")
        assert "password" not in repr(found)


async def test_a_crash_of_a_service_below_the_app_ends_the_process(table: CountsTable) -> None:
    class Fetcher(Service):
        """Any service of Faust's, which crashes by itself."""

    below = Fetcher(beacon=table.app.beacon)
    with pytest.raises(EndedError):
        await below.crash(KafkaError())
