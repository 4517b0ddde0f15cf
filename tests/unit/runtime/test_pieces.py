"""The small parts: guard, exits, batches, health, markers, credentials."""

from __future__ import annotations

import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import TopicPartition
from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from faust.types import TP
from tests.support.counting import Counts, EndedError, WorkerConfig, build, ended

from tallystream.schemas.errors import UnfitError
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.runtime import App, Part, PartProgress, Progress, expiry
from tallystream.streams.runtime.changelog import Closed, Position
from tallystream.streams.runtime.crash import Exit, last_words
from tallystream.streams.runtime.faust_backend.app import credentials
from tallystream.streams.runtime.faust_backend.batches import MAX_RECORDS, BatchScheduler
from tallystream.streams.runtime.membership import Membership
from tallystream.streams.runtime.source_check import check_offset, check_record

SOURCE = TopicPartition("s", 0)


class Hand:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_guard_counts_from_when_a_heartbeat_was_sent() -> None:
    clock = Hand()
    membership = Membership(10.0, clock)
    assert membership.lost()
    sent = membership.now()
    clock.now = 105.0  # the answer took its time
    membership.confirmed(sent)
    clock.now = 110.0
    assert membership.lost() is None
    clock.now = 110.1
    assert "10.1 s ago" in (membership.lost() or "")
    membership.confirmed(110.0)
    assert membership.lost() is None
    membership.ended()
    assert membership.lost() == "not a member of the group"
    clock.now = 200.0
    assert membership.silence() == 90.0


async def test_no_write_without_membership(table: Counts) -> None:
    with pytest.raises(EndedError):
        table.app.must_be_member()
    table.app.membership.confirmed(table.app.membership.now())
    table.app.must_be_member()


def test_last_words_are_one_line_unless_nobody_foresaw_it() -> None:
    assert last_words("why") == "FATAL why\n"
    assert last_words(UnfitError("what", "do this")) == "FATAL what (do this)\n"
    assert last_words(KafkaConnectionError("away")) == "FATAL Kafka: KafkaConnectionError('away')\n"
    with pytest.raises(KeyError) as caught:
        {"a": 1}["x"]
    assert "Traceback" in last_words(caught.value)


def test_exit_ends_with_70_and_says_why_past_any_redirection(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EndedError, match="70"):
        Exit(ended)("because")
    assert capfd.readouterr().err == "FATAL because\n"


def test_batches_hold_all_records_in_order() -> None:
    records = [SimpleNamespace(topic="t", partition=1, offset=n, timestamp=n) for n in range(2 * MAX_RECORDS + 1)]
    batches = list(BatchScheduler().iterate({TP("t", 1): records, TP("t", 2): []}))
    assert [record for _, batch in batches for record in batch.value] == records
    assert [len(batch.value) for _, batch in batches] == [MAX_RECORDS, MAX_RECORDS, 1]
    assert [batch.offset for _, batch in batches] == [MAX_RECORDS - 1, 2 * MAX_RECORDS - 1, 2 * MAX_RECORDS]


IDLE = PartProgress(5, 5, 5, 0.0)


@pytest.mark.parametrize(
    ("progress", "stuck"),
    [
        (Progress({}, 0, 1e6), False),
        (Progress({0: IDLE}, 0, 1e6), False),
        (Progress({0: IDLE}, 1, 31.0), True),
        (Progress({0: IDLE}, 1, 29.0), False),
        (Progress({0: PartProgress(5, 5, 6, 0.0)}, 0, 31.0), True),
        (Progress({0: PartProgress(5, 5, 6, 0.0)}, 0, 29.0), False),
        (Progress({0: PartProgress(5, 5, None, 0.0)}, 0, 1e6), False),
        (Progress({0: PartProgress(6, 5, 6, 31.0), 1: IDLE}, 0, 0.0), True),
        (Progress({0: PartProgress(6, 5, 6, 29.0), 1: IDLE}, 0, 0.0), False),
    ],
)
def test_stuck_is_work_without_progress(progress: Progress, stuck: bool) -> None:
    assert (progress.stuck(30.0) is not None) is stuck


async def test_an_app_that_never_joined_is_not_ready_and_turns_unhealthy(tmp_path: Path) -> None:
    app, _ = build(WorkerConfig("127.0.0.1:1", "unit", 2, str(tmp_path), "", store="memory"), exit=ended)
    assert not app.ready().ok
    assert app.healthy().ok
    app.membership = Membership(2.0, clock := Hand())
    clock.now += 1000
    assert "no heartbeat" in app.healthy().why


async def test_a_marker_never_falls(table: Counts) -> None:
    part = Part(Position(0))
    assert expiry.raise_marker(table, part, Position(0)) is None
    assert expiry.raise_marker(table, part, Position(7, 2000)) == Closed(b"%020d" % 1500, 7)
    assert expiry.raise_marker(table, part, Position(8, 1000)) is None
    assert expiry.raise_marker(table, part, Position(9, 2000)) is None
    assert (part.closed, part.settled) == (b"%020d" % 1500, 7)


def test_the_source_must_be_the_one_that_was_counted() -> None:
    check_offset(SOURCE, 5, 0, 9)
    check_offset(SOURCE, 5, 5, 5)
    with pytest.raises(UnfitError, match="retention deleted 5 to 5"):
        check_offset(SOURCE, 5, 6, 9)
    with pytest.raises(UnfitError, match="created again"):
        check_offset(SOURCE, 5, 0, 4)
    check_record(SOURCE, Position(5, 70), 4, 70)
    check_record(SOURCE, Position(0), 3, 70)
    for offset, append_ms in ((4, 71), (3, 70)):
        with pytest.raises(UnfitError, match="created again"):
            check_record(SOURCE, Position(5, 70), offset, append_ms)


async def test_every_client_authenticates_alike(tmp_path: Path) -> None:
    """Faust's consumer and producer, by its settings; recovery's reader, by ours."""
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


def test_credentials_in_fausts_terms() -> None:
    assert credentials(KafkaSettings("h:1")) is None
    assert isinstance(credentials(KafkaSettings("h:1", "SSL")), SSLCredentials)
    for protocol, mechanism in (("SASL_SSL", "SCRAM-SHA-512"), ("SASL_PLAINTEXT", "PLAIN")):
        found = credentials(KafkaSettings("h:1", protocol, mechanism, "user", "password"))
        assert isinstance(found, SASLCredentials)
        assert (found.protocol.value, found.mechanism.value) == (protocol, mechanism)
        assert (found.username, found.password) == ("user", "password")
        assert isinstance(found.ssl_context, ssl.SSLContext) is protocol.endswith("SSL")
        assert "password" not in repr(found)
