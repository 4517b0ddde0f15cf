"""Every Kafka client of the product is created by the client kit, and every producer is idempotent."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from tallystream.schemas.errors import UnreachableError
from tallystream.streams.kafka import producer as producers
from tallystream.streams.kafka.errors import REACH_HINT, unreachable
from tallystream.streams.kafka.producer import ProducerProfile, new_producer
from tallystream.streams.kafka.settings import KafkaSettings

ROOT = Path(__file__).parents[3]
CLIENTS = {"AIOKafkaProducer", "AIOKafkaConsumer", "AIOKafkaAdminClient"}
PROFILES = {name: value for name, value in vars(producers).items() if isinstance(value, ProducerProfile)}


def test_kafka_clients_are_created_only_in_the_kit() -> None:
    made = {
        (str(path.relative_to(ROOT)), name)
        for folder in ("schemas", "streams", "agents", "src")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and (name := getattr(node.func, "attr", None) or getattr(node.func, "id", None)) in CLIENTS
    }
    assert made == {
        ("streams/kafka/producer.py", "AIOKafkaProducer"),
        ("streams/kafka/consumer.py", "AIOKafkaConsumer"),
        ("streams/kafka/admin.py", "AIOKafkaAdminClient"),
    }


@pytest.mark.parametrize("name", PROFILES)
async def test_every_producer_is_idempotent_and_waits_for_all_replicas(name: str) -> None:
    producer = new_producer(KafkaSettings("127.0.0.1:1"), PROFILES[name])
    assert producer._txn_manager is not None
    assert producer._sender._acks == -1
    assert producer._request_timeout_ms == PROFILES[name].request_timeout * 1000
    assert producer._max_request_size == PROFILES[name].request_bytes
    await producer.stop()


def test_producer_profile_changes_only_named_settings() -> None:
    default = ProducerProfile()
    changed = {name: {f.name for f in dataclasses.fields(p) if getattr(p, f.name) != getattr(default, f.name)}
               for name, p in PROFILES.items()}  # fmt: skip
    assert changed == {
        "SINGLE": set(),
        "MANY": {"linger"},
        "BUCKETS": {"request_timeout", "request_bytes", "compression"},
        "GATEWAY": {"request_timeout", "batch_bytes"},
    }


@pytest.mark.parametrize(
    ("cause", "text"),
    [(OSError("no route"), "no route"), (TimeoutError(), "TimeoutError"), ("no records", "no records")],
)
def test_unreachable_cluster_is_one_error_with_a_next_step(cause: object, text: str) -> None:
    error = unreachable(KafkaSettings("kafka-0:9092"), cause, "take the reset")
    assert isinstance(error, UnreachableError)
    assert error.message == f"Kafka at kafka-0:9092 did not take the reset: {text}"
    assert error.hint == REACH_HINT
