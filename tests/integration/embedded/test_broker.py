"""The embedded broker is restarted, killed, started twice, loses its parent process, and is visited by strangers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from tests.support.files import files_in
from tests.support.open_kafka import OpenKafka
from tests.support.waiting import eventually

from tallystream.schemas.errors import UsageError
from tallystream.streams.embedded import secret
from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.kafka.admin import administering
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import TopicSpec

TOPIC = TopicSpec("kept", 1)
PARTITION = TopicPartition(TOPIC.name, 0)


def append(kafka: KafkaSettings, value: bytes) -> None:
    async def send() -> None:
        await ensure(kafka, (TOPIC,))
        async with AIOKafkaProducer(**kafka.client(), acks="all") as producer:
            await producer.send_and_wait(TOPIC.name, value)

    asyncio.run(send())


def contents(kafka: KafkaSettings) -> list[bytes]:
    async def read() -> list[bytes]:
        async with AIOKafkaConsumer(**kafka.client()) as consumer:
            consumer.assign([PARTITION])
            await consumer.seek_to_beginning(PARTITION)
            end = (await consumer.end_offsets([PARTITION]))[PARTITION]
            return [(await consumer.getone()).value for _ in range(end)]

    return asyncio.run(read())


def refused(kafka: KafkaSettings) -> bool:
    async def ask() -> None:
        async with administering(kafka, request_timeout=10.0) as admin:
            await admin.list_topics()

    try:
        asyncio.run(ask())
    except KafkaError:
        return True
    return False


def gone(pid: int) -> bool:
    """Tell whether the process has ended, including one that has not been waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_broker_keeps_data_and_port_and_refuses_a_second_start(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as broker:
        bootstrap = broker.bootstrap
        append(broker.settings, b"first")
        with pytest.raises(UsageError, match=f"already runs in .* .process {os.getpid()}"):
            EmbeddedKafka(tmp_path).start()
        assert contents(broker.settings) == [b"first"]
    with EmbeddedKafka(tmp_path) as broker:
        assert broker.bootstrap == bootstrap
        assert contents(broker.settings) == [b"first"]
        append(broker.settings, b"second")
        os.kill(broker.pid, signal.SIGKILL)
        assert eventually(lambda: broker.poll() is not None, "the JVM has ended")
    with EmbeddedKafka(tmp_path) as broker:
        assert broker.bootstrap == bootstrap
        assert contents(broker.settings) == [b"first", b"second"]
        os.kill(broker.pid, signal.SIGSTOP)
        broker.stop(600)  # longer than the test's timeout: a stopped JVM must not be waited for


def test_broker_ends_with_its_killed_owner_and_can_be_restarted(tmp_path: Path) -> None:
    owner = textwrap.dedent("""
        import sys, threading, time
        from pathlib import Path
        from tallystream.streams.embedded.broker import EmbeddedKafka

        broker = EmbeddedKafka(Path(sys.argv[1]))
        starter = threading.Thread(target=broker.start)
        starter.start()
        starter.join()
        print(broker.pid, broker.bootstrap, flush=True)
        sys.stdin.read()
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", owner, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        try:
            pid, bootstrap = process.stdout.readline().split()
            # The thread that started it has ended; the broker has not.
            append(secret.settings(tmp_path, bootstrap), b"kept")
            assert not gone(int(pid))
        finally:
            process.kill()
    with EmbeddedKafka(tmp_path) as broker:
        assert gone(int(pid))
        assert broker.bootstrap == bootstrap
        assert contents(broker.settings) == [b"kept"]


def test_only_clients_with_the_secret_are_let_in(tmp_path: Path) -> None:
    with OpenKafka(tmp_path) as older:
        append(older.settings, b"kept")
    for name in ("secret", "secret.known"):  # an older version has neither
        (tmp_path / name).unlink()
    with EmbeddedKafka(tmp_path) as broker:
        ours = broker.settings
        assert contents(ours) == [b"kept"]
        controller = json.loads((tmp_path / "ports.json").read_text())["controller_port"]
        for address in (broker.bootstrap, f"127.0.0.1:{controller}"):
            assert refused(KafkaSettings(address))
            for mechanism in ("SCRAM-SHA-512", "PLAIN"):
                assert refused(replace(ours, bootstrap=address, sasl_mechanism=mechanism, password="guessed"))
        assert refused(replace(ours, bootstrap=f"127.0.0.1:{controller}", sasl_mechanism="PLAIN"))
        assert not refused(ours)
        assert ours.password is not None
        assert ours.password.encode() not in Path(f"/proc/{broker.pid}/cmdline").read_bytes()
        holders = [file for file, held in files_in(tmp_path) if ours.password.encode() in held]
        assert {file.name for file in holders} == {"secret", "client.properties", "server.properties"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in holders} == {0o600}
    (tmp_path / "secret").unlink()
    with EmbeddedKafka(tmp_path) as broker:
        assert contents(broker.settings) == [b"kept"]
        assert broker.settings.password != ours.password
        assert refused(ours)


def test_taken_port_is_refused_before_the_start(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is taken"):
            EmbeddedKafka(tmp_path, port=port).start()
    assert not (tmp_path / "log").exists()
