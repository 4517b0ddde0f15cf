"""Usage messages as gateways write them, for the benchmarks of the worker."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

SESSIONS = 2000
HOURS = 3
COPIES = 0.05
MODELS = ("gpt-5-codex", "gpt-5.4", "gpt-6.1-sol")


def messages(
    events: int, pack: int, seed: int = 1, now: datetime | None = None, sessions: int = SESSIONS
) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of messages of `pack` events, in all `events`.

    5% repeat an event of the session's last message of the same hour.
    """
    rng, now = random.Random(seed), now or datetime.now(UTC)
    last: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for _ in range(events // pack):
        n, back = rng.randrange(sessions), rng.randrange(HOURS)
        at = int((now - timedelta(hours=back)).timestamp()) * 10**9
        known = last.get((n, back))
        made = []
        for _ in range(pack):
            if known and rng.random() < COPIES:
                made.append(rng.choice(known))
                continue
            made.append(
                {
                    "event_id": f"{rng.getrandbits(64):016x}",
                    "occurred_at": at + rng.randrange(10**9),
                    "model": MODELS[n % 3],
                    "input_uncached": rng.randrange(9000),
                    "cache_read": rng.randrange(200_000),
                    "cache_write_5m": 0,
                    "cache_write_1h": 0,
                    "output": 900,
                    "reasoning": rng.randrange(900),
                    "tool": 0,
                }
            )
        last[n, back] = made
        head = {"connection_id": f"codex-{n % 20:04x}", "client": "codex", "provider": "openai"}
        attribution = {"user": f"u_{n % 300:016x}", "team": f"team-{n % 10}", "repo": f"acme/app-{n % 40}"}
        yield (
            f"codex-{n % 20:04x}|s{n:06d}".encode(),
            orjson.dumps({**head, "session_id": f"s{n:06d}", "attribution": attribution, "events": made}),
        )


async def preload(kafka: KafkaSettings, topics: Topics, events: int, pack: int, sessions: int = SESSIONS) -> int:
    """Create the topics and write the messages; return how many."""
    await ensure(kafka, topics.all())
    producer = AIOKafkaProducer(**kafka.client(), linger_ms=20, max_batch_size=500_000)
    await producer.start()
    count = 0
    for key, value in messages(events, pack, sessions=sessions):
        await producer.send(topics.usage.name, value, key=key)
        count += 1
    await producer.stop()
    return count
