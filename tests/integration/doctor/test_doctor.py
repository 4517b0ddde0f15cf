"""`tallystream doctor` reports each fault while it exists, and no longer when it is gone."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from tests.chaos.cluster import Cluster
from tests.chaos.disks import filled
from tests.chaos.load import Fleet, Fleetwise
from tests.chaos.parts import ROOT
from tests.support.topics import create_topics, raise_partitions
from tests.support.waiting import PATIENCE, eventually, until

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]
SMALLEST_SPOOL = 1 << 20


class Doctor:
    """Runs `tallystream doctor --json` and keeps its findings."""

    def __init__(self, kafka: str, environment: dict[str, str], *arguments: str) -> None:
        self.argv = [sys.executable, "-m", "tallystream", "doctor", "--json", "--kafka", kafka]
        self.argv += ["--watch", "2", *arguments]
        self.environment = environment

    def document(self) -> dict[str, Any]:
        """Return its output, and check that the exit code agrees with the findings."""
        done = subprocess.run(
            self.argv, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.stdout, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (1 if document["findings"] else 0)
        assert document["ok"] is not bool(document["findings"])
        assert all(one["next"] for one in document["findings"])
        return document

    def finds(self) -> dict[str, str]:
        """Return its findings by check, one for each line."""
        found: dict[str, str] = {}
        for one in self.document()["findings"]:
            found[one["check"]] = "\n".join([*filter(None, [found.get(one["check"])]), one["finding"]])
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    small = {"TALLYSTREAM_SPOOL_MAX_BYTES": str(SMALLEST_SPOOL)}
    with Cluster(tmp_path_factory.mktemp("doctor"), workers=1, partitions=2, environment=small) as made:
        yield made


@pytest.fixture(scope="module")
def fleet(cluster: Cluster) -> Iterator[Fleet]:
    made = Fleet(f"http://127.0.0.1:{cluster.port}", cluster.connect(), Fleetwise(20, 3, agents=5))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def doctor(cluster: Cluster, fleet: Fleet) -> Doctor:
    gateway = f"http://127.0.0.1:{cluster.gateway.ops_port}"
    where = ("--gateway-ops", gateway, "--data-dir", str(cluster.folder))
    return Doctor(cluster.addresses, cluster.environment, *where)


def well(doctor: Doctor) -> None:
    eventually(lambda: not doctor.finds(), "all is well")


def test_doctor_reports_a_filling_spool_while_kafka_is_down(doctor: Doctor, cluster: Cluster, fleet: Fleet) -> None:
    crowd = Fleet(fleet.base, fleet.ingest_id, Fleetwise(300, 4, agents=60))

    def full() -> bool:
        return cluster.gateway.metric("tallystream_gateway_spool_bytes") > 0.6 * SMALLEST_SPOOL

    cluster.signal_broker(signal.SIGSTOP)
    crowd.start()
    try:
        eventually(full, "the spool is more than half full")
        found = doctor.finds()
    finally:
        cluster.signal_broker(signal.SIGCONT)
        crowd.stop()
    assert "does not answer" in found["broker"]
    assert "spools because Kafka does not acknowledge" in found["spool"]
    assert "% full; when it is full, requests get 503" in found["spool"]
    well(doctor)


def test_doctor_reports_a_stuck_worker(doctor: Doctor, cluster: Cluster) -> None:
    (worker,) = cluster.workers
    worker.signal(signal.SIGSTOP)
    try:
        eventually(lambda: cluster.witness.waiting() > 5, "messages wait")
        found = doctor.finds()
    finally:
        worker.signal(signal.SIGCONT)
    assert "none was counted" in found["group"] or "no worker runs" in found["group"]


def test_doctor_reports_that_no_worker_runs(doctor: Doctor, cluster: Cluster) -> None:
    (worker,) = cluster.workers
    worker.wanted = False
    worker.kill()
    try:
        eventually(lambda: "no worker runs" in doctor.finds().get("group", ""), "it says so")
    finally:
        worker.wanted = True


def test_doctor_reports_a_missing_gateway(doctor: Doctor, cluster: Cluster) -> None:
    gateway = cluster.gateway
    gateway.wanted = False
    gateway.kill()
    try:
        assert "does not answer" in doctor.finds()["gateway"]
    finally:
        gateway.wanted = True
    eventually(lambda: gateway.ready, "the gateway is back")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_doctor_reports_a_nearly_full_disk(doctor: Doctor, cluster: Cluster, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "gateway").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(data / "gateway")], check=True)
    try:
        elsewhere = Doctor("127.0.0.1:1", doctor.environment, "--data-dir", str(data))
        assert "disk" not in elsewhere.finds()
        with filled(data / "gateway"):
            assert str(data / "gateway") in elsewhere.finds()["disk"]
    finally:
        subprocess.run(["umount", "-l", str(data / "gateway")], check=True)


# -- on separate topics


def own(kafka: KafkaSettings, prefix: str) -> Doctor:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TALLYSTREAM_")}
    environment = kept | {
        "PYTHONPATH": str(ROOT / "src"), "TALLYSTREAM_PREFIX": prefix, "TALLYSTREAM_PARTITIONS": "2",
    }  # fmt: skip
    return Doctor(kafka.bootstrap, environment)


async def admin(kafka: KafkaSettings) -> AIOKafkaAdminClient:
    client = AIOKafkaAdminClient(**kafka.client())
    await client.start()
    return client


async def test_doctor_reports_a_growing_lag(kafka: KafkaSettings, prefix: str) -> None:
    """The doctor sees a group's offsets only, so the slow worker is a consumer that commits less than arrives."""
    topics = Topics(prefix, 2)
    await ensure(kafka, topics.all())
    places = [TopicPartition(topics.usage.name, partition) for partition in range(2)]

    async def fall_behind() -> None:
        group = AIOKafkaConsumer(
            topics.usage.name, **kafka.client(), group_id=topics.worker_app, enable_auto_commit=False
        )
        async with group, AIOKafkaProducer(**kafka.client()) as producer:
            await until(lambda: group.assignment() == set(places), "it has joined")
            for committed in itertools.count(1):
                for at in places:
                    for _ in range(200):
                        last = await producer.send(at.topic, b"{}", partition=at.partition)
                    await last
                await group.commit(dict.fromkeys(places, committed))
                await asyncio.sleep(0.1)

    async def says_so() -> bool:
        return "the lag grows" in (await asyncio.to_thread(own(kafka, prefix).finds)).get("lag", "")

    falling = asyncio.create_task(fall_behind())
    try:
        await until(lambda: falling.done() or says_so(), "it says so")
    finally:
        falling.cancel()
        with suppress(asyncio.CancelledError):
            await falling


async def test_doctor_reports_a_changed_partition_count(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, 2)
    await ensure(kafka, topics.all())
    client = await admin(kafka)
    try:
        await raise_partitions(client, 3, topics.usage.name)
    finally:
        await client.close()
    assert f"{topics.usage.name} has 3 partitions instead of 2" in own(kafka, prefix).finds()["partitions"]


async def test_doctor_reports_missing_and_wrong_topics(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, 2)
    client = await admin(kafka)
    try:
        await create_topics(client, NewTopic(topics.usage.name, 2, 1, topic_configs={"cleanup.policy": "compact"}))
    finally:
        await client.close()
    found = own(kafka, prefix)
    said = [one["finding"] for one in found.document()["findings"]]
    assert any(f"the topic {topics.hour_rows.name} does not exist" in one for one in said)
    assert any("cleanup.policy=compact instead of delete" in one for one in said)


async def test_doctor_reports_a_broker_clock_that_is_ahead(kafka: KafkaSettings, prefix: str) -> None:
    """The topic uses the producer's time, to simulate a broker whose clock is an hour ahead."""
    topics = Topics(prefix, 2)
    client = await admin(kafka)
    try:
        config = topics.usage.config | {"message.timestamp.type": "CreateTime"}
        await create_topics(client, NewTopic(topics.usage.name, 2, 1, topic_configs=config))
    finally:
        await client.close()
    await ensure(kafka, tuple(spec for spec in topics.all() if spec.name != topics.usage.name))
    producer = AIOKafkaProducer(**kafka.client())
    await producer.start()
    ahead = int((time.time() + 3600) * 1000)
    await producer.send_and_wait(topics.usage.name, b"{}", partition=1, timestamp_ms=ahead)
    await producer.stop()
    assert "ahead of this machine's" in own(kafka, prefix).finds()["clock"]


async def test_doctor_reports_a_recreated_usage_topic(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, 2)
    await ensure(kafka, topics.all())
    consumer = AIOKafkaConsumer(**kafka.client(), group_id=topics.worker_app, enable_auto_commit=False)
    await consumer.start()
    at = TopicPartition(topics.usage.name, 0)
    consumer.assign([at])
    await consumer.commit({at: 700})
    await consumer.stop()
    assert "deleted and recreated" in own(kafka, prefix).finds()["recreated"]


async def test_doctor_reports_messages_lost_before_they_were_counted(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, 1)
    await ensure(kafka, topics.all())
    at = TopicPartition(topics.usage.name, 0)
    async with AIOKafkaProducer(**kafka.client()) as producer:
        for _ in range(14):
            await producer.send_and_wait(topics.usage.name, b"{}", partition=0)
    consumer = AIOKafkaConsumer(**kafka.client(), group_id=topics.worker_app, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([at])
    await consumer.commit({at: 6})
    await consumer.stop()
    client = await admin(kafka)
    try:
        await client.delete_records({at: RecordsToDelete(before_offset=14)})
    finally:
        await client.close()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TALLYSTREAM_")} | {
        "TALLYSTREAM_PREFIX": prefix,
        "TALLYSTREAM_PARTITIONS": "1",
        "PYTHONPATH": str(ROOT / "src"),
    }

    def said(*command: str) -> subprocess.CompletedProcess[str]:
        where = ("--json", "--kafka", kafka.bootstrap)
        return subprocess.run(
            [sys.executable, "-m", "tallystream", *command, *where],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    waited = said("wait", "--caught-up", "--timeout", "30")
    assert (waited.returncode, json.loads(waited.stderr.splitlines()[-1])["code"]) == (4, "mismatch")
    assert "8 messages" in waited.stderr
    found = {one["check"]: one["finding"] for one in json.loads(said("doctor", "--watch", "2").stdout)["findings"]}
    assert (
        "8 messages of `usage` were removed before they were counted (partition: offsets 0: 6 to 13)" in found["lost"]
    )


def test_doctor_reports_that_nothing_runs(tmp_path: Path) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TALLYSTREAM_")}
    done = subprocess.run(
        [sys.executable, "-m", "tallystream", "doctor", "--json", "--data-dir", str(tmp_path)], cwd=ROOT,
        env=kept | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert json.loads(done.stderr)["code"] == "unreachable"
