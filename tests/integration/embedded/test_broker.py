"""The embedded broker is restarted, killed, started twice, and loses its parent process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from tests.support.waiting import eventually

from tallystream.schemas.errors import UsageError
from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import TopicSpec

TOPIC = TopicSpec("kept", 1)
PARTITION = TopicPartition(TOPIC.name, 0)


def append(bootstrap: str, value: bytes) -> None:
    async def send() -> None:
        await ensure(KafkaSettings(bootstrap), (TOPIC,))
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
            await producer.send_and_wait(TOPIC.name, value)

    asyncio.run(send())


def contents(bootstrap: str) -> list[bytes]:
    async def read() -> list[bytes]:
        async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
            consumer.assign([PARTITION])
            await consumer.seek_to_beginning(PARTITION)
            end = (await consumer.end_offsets([PARTITION]))[PARTITION]
            return [(await consumer.getone()).value for _ in range(end)]

    return asyncio.run(read())


def gone(pid: int) -> bool:
    """Tell whether the process has ended, including one that has not been waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_broker_keeps_data_and_port_and_refuses_a_second_start(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as broker:
        bootstrap = broker.bootstrap
        append(bootstrap, b"first")
        with pytest.raises(UsageError, match=f"already runs in .* .process {os.getpid()}"):
            EmbeddedKafka(tmp_path).start()
        assert contents(bootstrap) == [b"first"]
    with EmbeddedKafka(tmp_path) as broker:
        assert broker.bootstrap == bootstrap
        assert contents(bootstrap) == [b"first"]
        append(bootstrap, b"second")
        os.kill(broker.pid, signal.SIGKILL)
        assert eventually(lambda: broker.poll() is not None, "the JVM has ended")
    with EmbeddedKafka(tmp_path) as broker:
        assert broker.bootstrap == bootstrap
        assert contents(bootstrap) == [b"first", b"second"]
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
            append(bootstrap, b"kept")
            assert not gone(int(pid))
        finally:
            process.kill()
    with EmbeddedKafka(tmp_path) as broker:
        assert gone(int(pid))
        assert broker.bootstrap == bootstrap
        assert contents(bootstrap) == [b"kept"]


def test_taken_port_is_refused_before_the_start(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is taken"):
            EmbeddedKafka(tmp_path, port=port).start()
    assert not (tmp_path / "log").exists()
