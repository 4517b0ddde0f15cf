"""Session rows into Port, end to end: rows on Kafka, `tallystream sink`, the sandbox's Port over HTTP.

    python benchmarks/port_sink.py HOST:PORT [ROWS]

HOST:PORT is a Kafka broker. Sink and sandbox are separate processes. Port's documented limits apply: 35,000 bulk
requests in five minutes, so at most 2,333 entities a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiokafka import AIOKafkaProducer

from tallystream.schemas import keys
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.process.tcp_ports import pick

SESSION = "coding_agent_session"
NEWS_EVERY = 0.5


def row(number: int, version: int) -> dict[str, Any]:
    """Return a generated session-hour row."""
    attribution = {"team": f"team-{number % 20}"}
    counts = {"requests": 3, "input_uncached": 1000 + version, "cache_read": 9000, "cache_write_5m": 0,
              "cache_write_1h": 0, "output": 200, "reasoning": 50, "tool": 0, "total_tokens": 10_200 + version,
              "unpriced_requests": 0, "late_events": 0}  # fmt: skip
    bucket = {**counts, "cost_usd": "0.012345678", "reported_cost_usd": None, "model": "gpt-5-codex",
              "service_tier": None, "speed": None, "book": "b", "attribution": attribution}  # fmt: skip
    return {"connection_id": "codex-7f3a", "client": "codex", "provider": "openai", "session_id": f"session-{number}",
            "hour": "2026-11-21T13:00:00Z", "version": [0, version], "duplicates": 0, "buckets": [bucket]}  # fmt: skip


async def main() -> None:
    """Run it and print the figures."""
    bootstrap = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    kafka, topics = KafkaSettings(bootstrap), Topics(f"bench{uuid.uuid4().hex[:8]}")
    await ensure(kafka, topics.all())
    producer = AIOKafkaProducer(**kafka.client(), linger_ms=20, max_batch_size=1 << 18)
    await producer.start()

    async def append(number: int, version: int) -> None:
        value = row(number, version)
        key = keys.join(value["connection_id"], value["session_id"], value["hour"])
        where = number % topics.partitions
        await producer.send(topics.session_hour_rows.name, orjson.dumps(value), key=key, partition=where)

    for number in range(count):
        await append(number, 1)
    await producer.flush()
    sandbox_port, ops = pick(), pick()
    url = f"http://127.0.0.1:{sandbox_port}"
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            **os.environ, "TALLYSTREAM_KAFKA": bootstrap, "TALLYSTREAM_PREFIX": topics.prefix,
            "TALLYSTREAM_DATA_DIR": directory, "TALLYSTREAM_PORT_BASE_URL": f"{url}/port",
            "TALLYSTREAM_PORT_CLIENT_ID": "id", "TALLYSTREAM_PORT_CLIENT_SECRET": "secret",
        }  # fmt: skip
        log = (Path(directory) / "log").open("wb")
        start = [sys.executable, "-m", "tallystream"]
        sandbox = await asyncio.create_subprocess_exec(*start, "sandbox", "--port", str(sandbox_port), stdout=log)
        sink = await asyncio.create_subprocess_exec(
            *start, "sink", "--ops-port", str(ops), env=environment, stdout=log, stderr=log
        )
        try:
            async with aiohttp.ClientSession() as session:
                await measure(session, url, f"http://127.0.0.1:{ops}", count, append)
        finally:
            for process in (sink, sandbox):
                process.terminate()
                await process.wait()
            await producer.stop()


async def measure(session: aiohttp.ClientSession, url: str, ops: str, count: int, append: Any) -> None:
    """Wait for the rows, then change one row every half a second and see how long each takes."""
    began, first, worst, there = time.monotonic(), 0.0, 0.0, 0.0
    while there < count:
        there = await metric(session, ops, f'tallystream_sink_entities_upserted_total{{blueprint="{SESSION}"}}')
        if there and not first:
            first = time.monotonic()
        worst = max(worst, await metric(session, ops, "tallystream_sink_behind_seconds"))
        assert time.monotonic() - began < 1200, "not within 20 minutes"
        await asyncio.sleep(0.5)
    seconds = time.monotonic() - first
    state = await get(session, f"{url}/sandbox")
    assert state["entities"][SESSION] == count, "entity for entity"
    bulk = state["limits"]["entities-bulk"]
    print(f"{count:,} session rows: {bulk['calls']:,} bulk calls (rows / 20 = {count / 20:,.0f}),"
          f" {bulk['refused']} throttled")  # fmt: skip
    print(f"{seconds:.0f} s, {count / seconds:,.0f} entities a second; at most {worst:.0f} s behind")
    cpu = await metric(session, ops, "process_cpu_seconds_total")
    memory = await metric(session, ops, "process_resident_memory_bytes")
    print(f"sink: {cpu:.1f} CPU-seconds, {cpu / count * 1e6:.0f} us an entity, {memory / 2**20:.0f} MiB")
    waits = []
    for number in range(20):
        sent = time.monotonic()
        await append(number, 1_000_000 + number)
        while not await has(session, url, number):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
        waits.append(time.monotonic() - sent)
        await asyncio.sleep(NEWS_EVERY)
    waits.sort()
    print(f"one changed row is in Port after {waits[10]:.2f} s (median), {waits[-1]:.2f} s (worst of 20)")


async def has(session: aiohttp.ClientSession, url: str, number: int) -> bool:
    """Tell whether Port has a row's change."""
    if not hasattr(has, "token"):
        async with session.post(f"{url}/port/v1/auth/access_token", json={"clientId": "a", "clientSecret": "b"}) as one:
            has.token = (await one.json())["accessToken"]  # type: ignore[attr-defined]  # kept for the next call
    path = f"{url}/port/v1/blueprints/{SESSION}/entities/codex-7f3a:session-{number}"
    headers = {"Authorization": f"Bearer {has.token}"}  # type: ignore[attr-defined]
    async with session.get(path, headers=headers) as answer:
        found = await answer.json()
    return bool(found["entity"]["properties"]["input_tokens"] == 1_001_000 + number)


async def get(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Return a JSON document, an empty one if there is no answer."""
    try:
        async with session.get(url) as answer:
            found: dict[str, Any] = json.loads(await answer.text())
            return found
    except (aiohttp.ClientError, OSError):
        return {}


async def metric(session: aiohttp.ClientSession, ops: str, name: str) -> float:
    """Return a metric, 0 if there is no answer."""
    try:
        async with session.get(f"{ops}/metrics") as answer:
            lines = (await answer.text()).splitlines()
    except (aiohttp.ClientError, OSError):
        return 0.0
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


if __name__ == "__main__":
    asyncio.run(main())
