"""`tallystream poller` as processes that are killed and stopped; keys must not leak anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest
from tests.support.openai_rig import DAY, TOKEN, Rig, only, rig
from tests.support.waiting import ANSWER, PATIENCE, until

from tallystream.schemas.openai import at
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.poller.resources import BUILTIN, builtin
from tallystream.streams.process.tcp_ports import pick

pytestmark = pytest.mark.kafka
COSTS = "/organization/costs"


@dataclass
class Process:
    """One `tallystream poller`."""

    running: subprocess.Popen[bytes]
    ops: str
    log: Path

    async def page(self, path: str) -> str:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(self.ops + path, timeout=aiohttp.ClientTimeout(ANSWER)) as answer:
                    return await answer.text()
            except (aiohttp.ClientError, TimeoutError):
                return ""

    async def active(self) -> bool:
        return (await self.role()) == "active"

    async def role(self) -> str | None:
        found = re.search(r'"why":"(\w+)', await self.page("/readyz"))
        return found and found[1]


@contextmanager
def poller(one: Rig, directory: Path, name: str, **changes: str) -> Iterator[Process]:
    port = pick()
    log = directory / f"{name}.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TALLYSTREAM_")} | {
        "TALLYSTREAM_KAFKA": one.kafka.bootstrap,
        "TALLYSTREAM_PREFIX": one.topics.prefix,
        "TALLYSTREAM_DATA_DIR": str(directory / name),
        "TALLYSTREAM_OPENAI_BASE_URL": one.sandbox.url + "/openai/v1",
        "TALLYSTREAM_OPENAI_API_TOKEN": TOKEN,
        "TALLYSTREAM_OPENAI_INTERVAL": "PT1S",
        "TALLYSTREAM_OPENAI_FAILOVER": "PT4S",
        "TALLYSTREAM_OPENAI_RESOURCES": str(resource_file(directory)),
        **changes,
    }
    argv = [sys.executable, "-m", "tallystream", "poller", "--ops-port", str(port)]
    with log.open("wb") as out:
        running = subprocess.Popen(argv, env=environment, stdout=out, stderr=out)
    try:
        yield Process(running, f"http://127.0.0.1:{port}", log)
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGCONT)
            running.terminate()
        running.wait(ANSWER)


def resource_file(directory: Path) -> Path:
    """Two resources are enough here and keep the log readable."""
    path = directory / "resources.toml"
    kept = {COSTS, "/models"}
    names = [f'"{resource.name}"' for resource in builtin(*BUILTIN) if resource.name not in kept]
    path.write_text(f"disable = [{', '.join(names)}]\n")
    return path


@pytest.fixture
async def openai(kafka: KafkaSettings, prefix: str) -> AsyncIterator[Rig]:
    """The sandbox uses real time here, like the processes."""
    async with rig(kafka, prefix, only(COSTS, "/models")) as one:
        one.clock.seconds = time.time()
        yield one


def spent(one: Rig, day: int) -> Decimal:
    cells = one.sandbox.source.day(day)
    return sum((dollars for cell in cells for dollars in cell.costs.values()), Decimal(0))


async def published(one: Rig, day: int) -> bool:
    """Tell whether readers see the source's cost of a (complete) day."""
    rows = (await one.rows()).get((COSTS, at(day * DAY).strftime("%Y-%m-%d")))
    return rows is not None and sum(row["amount"]["value"] for row in rows) == spent(one, day)


async def which(processes: list[Process]) -> tuple[Process, Process] | None:
    """Return the active poller and the standby, once both exist."""
    roles = [await process.role() for process in processes]
    if sorted(role or "" for role in roles) != ["active", "standby"]:
        return None
    return processes[roles.index("active")], processes[roles.index("standby")]


async def test_standby_takes_over_from_a_killed_poller_without_gaps(openai: Rig, tmp_path: Path) -> None:
    yesterday = int(openai.clock.seconds) // DAY - 1
    with poller(openai, tmp_path, "one") as one, poller(openai, tmp_path, "two") as two:
        active, standby = await until(lambda: which([one, two]), "one polls, one stands by")
        await until(lambda: published(openai, yesterday), "the first poll is in the topic")
        active.running.kill()
        before = spent(openai, yesterday)
        openai.sandbox.source.restate(yesterday)  # type: ignore[union-attr]
        assert spent(openai, yesterday) != before

        await until(standby.active, "the standby takes over")
        await until(lambda: published(openai, yesterday), "what changed meanwhile is in the topic")
        # The history is asked for after the days that may still change.
        await until(lambda: published(openai, yesterday - 29), "nothing of the history is missing")


async def test_paused_poller_that_resumes_changes_nothing(openai: Rig, tmp_path: Path) -> None:
    yesterday = int(openai.clock.seconds) // DAY - 1
    with poller(openai, tmp_path, "one") as one, poller(openai, tmp_path, "two") as two:
        active, standby = await until(lambda: which([one, two]), "one polls, one stands by")
        await until(lambda: published(openai, yesterday), "the first poll is in the topic")
        # Stopped during a poll, so that the answer it waits for is from before the restatement.
        openai.order(match="organization/costs", kind="latency", seconds=2.0, times=1)
        await until(lambda: openai.sandbox.faults.state()[0]["hit"], "a poll is under way")
        active.running.send_signal(signal.SIGSTOP)
        openai.sandbox.source.restate(yesterday)  # type: ignore[union-attr]

        await until(standby.active, "the standby takes over")
        await until(lambda: published(openai, yesterday), "what changed meanwhile is in the topic")
        asked = len(openai.sandbox.seen)
        active.running.send_signal(signal.SIGCONT)
        await until(lambda: which([one, two]), "there is one active poller and one standby again")
        await until(lambda: len(openai.sandbox.seen) > asked + 6, "polls go on")
        assert await published(openai, yesterday)


async def test_api_keys_never_appear_in_logs_topics_or_errors(openai: Rig, tmp_path: Path) -> None:
    """Refused, failing and working polls; then every log line, metric page and message is searched for the keys."""
    key_file = tmp_path / "admin.key"
    key_file.write_text("sk-admin-0f9d8c7b6a54\n")
    openai.order(match="/models", kind="status", status=401, times=2)
    openai.order(match="organization", kind="reset", times=6)
    with poller(openai, tmp_path, "one", TALLYSTREAM_OPENAI_ADMIN_TOKEN_FILE=str(key_file)) as one:
        await until(lambda: openai.sandbox.counts.get("GET /openai/v1/models 401"), "the API key is refused")
        await until(lambda: published(openai, int(openai.clock.seconds) // DAY - 1), "polled all the same")
        pages = await one.page("/metrics") + await one.page("/healthz") + await one.page("/readyz")
        assert 'tallystream_poller_failures_total{reason="unauthorised",resource="/models"}' in pages
    text = one.log.read_text() + pages
    assert "unauthorised" in text
    assert "TALLYSTREAM_OPENAI_API_TOKEN" in text
    for topic in (openai.topics.openai_records.name, openai.topics.poller_control.name):
        text += "".join(f"{key!r}{value!r}" for key, value in await openai.messages(topic))
    for secret in (TOKEN, "sk-admin-0f9d8c7b6a54", "Bearer"):
        assert secret not in text


def test_poller_without_a_key_names_the_setting(tmp_path: Path, kafka: KafkaSettings, prefix: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TALLYSTREAM_")}
    argv = [sys.executable, "-m", "tallystream", "poller", "--kafka", kafka.bootstrap, "--data-dir", str(tmp_path)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert "TALLYSTREAM_OPENAI_API_TOKEN" in done.stderr


async def test_poll_once_prints_its_result_and_fails_if_a_resource_fails(openai: Rig, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TALLYSTREAM_")} | {
        "TALLYSTREAM_PREFIX": openai.topics.prefix,
        "TALLYSTREAM_OPENAI_BASE_URL": openai.sandbox.url + "/openai/v1",
        "TALLYSTREAM_OPENAI_API_TOKEN": TOKEN,
        "TALLYSTREAM_OPENAI_RESOURCES": str(resource_file(tmp_path)),
    }
    argv = [sys.executable, "-m", "tallystream", "poller", "--once", "--backfill", "40", "--json",
            "--kafka", openai.kafka.bootstrap, "--data-dir", str(tmp_path)]  # fmt: skip
    openai.order(match="/models", kind="status", status=404, times=1)
    said = []
    for code in (1, 0):
        done = await asyncio.to_thread(
            subprocess.run, argv, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == code, done.stderr
        said.append(json.loads(done.stdout))
    assert said[0]["published"] == 41
    assert said[0]["failures"]["/models"]["reason"] == "not_found"
    assert said[1] == {"published": 1, "restated": 0, "unchanged": 8, "failures": {}}
