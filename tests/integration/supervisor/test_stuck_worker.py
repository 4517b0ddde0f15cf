"""A worker that hangs: its health check fails, and the supervisor replaces it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from tests.support.waiting import PATIENCE, until
from tests.support.worker import read

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.supervisor import runfile
from tallystream.supervisor.specs import OPS_PORT, ComponentSpec, Plan, Timing
from tallystream.supervisor.supervisor import Supervisor

pytestmark = pytest.mark.kafka
# `stop` exceeds the test's timeout: the supervisor must not wait for a worker that does not answer.
QUICK = Timing(poll=0.1, health=0.3, answer=2.0, red=4.0, start=PATIENCE, stop=600.0)


async def test_hanging_worker_is_replaced(
    kafka: KafkaSettings, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = Topics(prefix, 2)
    await ensure(kafka, topics.all())
    monkeypatch.setenv("TALLYSTREAM_PREFIX", prefix)
    monkeypatch.setenv("TALLYSTREAM_PARTITIONS", "2")
    argv = [sys.executable, "-m", "tallystream", "worker", "--instance", "w1", "--ops-port", OPS_PORT]
    argv += ["--kafka", kafka.bootstrap, "--data-dir", str(tmp_path)]
    spec = ComponentSpec("worker", tuple(argv), stop_rank=0, needs_kafka=False)
    said: list[str] = []

    async def prepare() -> None:
        pass

    def say(component: str, text: str) -> None:
        said.append(f"{component}: {text}")

    plan = Plan(tmp_path, "http://127.0.0.1:1", kafka.bootstrap, (spec,), QUICK)
    supervisor = Supervisor(plan, prepare=prepare, say=say, started=lambda _run: None)
    with runfile.SupervisorLock(tmp_path):
        running = asyncio.create_task(supervisor.run())

        def pid() -> int:
            run = runfile.read_live(tmp_path)
            return run.components[0].pid if run else 0

        try:
            await until(lambda: pid() > 0, "it is ready")
            hung = pid()
            os.kill(hung, signal.SIGSTOP)
            await until(lambda: pid() not in (0, hung), f"another one is ready: {said}")
            assert "worker: was not healthy and had to be ended; restarting it in 0.2 s" in said
            await until(lambda: "worker: ready again" in said, "it says so")
            producer = AIOKafkaProducer(**kafka.client())
            await producer.start()
            await producer.send_and_wait(topics.usage.name, b"nonsense", partition=1)
            await producer.stop()
            await until(lambda: read(kafka, topics.deadletters.name), "what comes now is judged")
        finally:
            supervisor._told()
            await running
