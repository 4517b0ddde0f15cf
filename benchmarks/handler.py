"""The gateway's whole way through a request in one process: real server code over a transport and a Kafka in memory.

Kafka's place is taken by a link that acknowledges every batch at once, so that only our own work and aiohttp's is
measured. `benchmarks.instructions` counts its instructions; `python -m benchmarks.handler` shows where they go.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import pstats
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import uvloop
from benchmarks.normalise import bodies
from prometheus_client import CollectorRegistry
from tests.support.gateway import connection, logs_path

from tallystream.schemas.connections import Connection
from tallystream.schemas.otlp import Encoding
from tallystream.streams.gateway import GatewayConfig
from tallystream.streams.gateway.acceptance import Acceptance
from tallystream.streams.gateway.auth import Authenticator
from tallystream.streams.gateway.budget import Budget
from tallystream.streams.gateway.connections.activity import ActivityLog
from tallystream.streams.gateway.connections.cache import Registry
from tallystream.streams.gateway.delivery.batch import ProducerBatch
from tallystream.streams.gateway.delivery.group_commit import Delivery
from tallystream.streams.gateway.delivery.producer import Link
from tallystream.streams.gateway.http.handler import Handler
from tallystream.streams.gateway.http.responses import Replies
from tallystream.streams.gateway.http.server import HttpServer
from tallystream.streams.gateway.ingest import Messages
from tallystream.streams.gateway.message import Message, Place
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.pseudonyms import pseudonyms
from tallystream.streams.gateway.quarantine import Quarantine
from tallystream.streams.gateway.quotas import Quotas, Turns
from tallystream.streams.gateway.spool.spool import Spool
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import SystemClock
from tallystream.streams.service.ops import Health


class _MemoryLink(Link):
    """Acknowledges at once."""

    def takes(self, place: Place) -> bool:
        return bool(place.topic)

    def send_grouped(self, groups: Mapping[Place, Sequence[Message]]) -> list[ProducerBatch]:
        batches = []
        for place, messages in groups.items():
            batch = ProducerBatch(place, 0, 0.0)
            batch.messages += messages
            batch.settle()
            batches.append(batch)
        return batches


class _MemoryTransport(asyncio.Transport):
    """Counts the answers."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = asyncio.Event()
        self.status: set[bytes] = set()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.status.add(bytes(data[9:12]))
        self.answered.set()

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


def requests(encoding: Encoding, path: str) -> list[bytes]:
    """Return requests of 24 records to this path."""
    head = f"POST {path} HTTP/1.1\r\nHost: benchmark\r\nContent-Type: {encoding.value}\r\nContent-Length: "
    return [head.encode() + b"%d\r\n\r\n%b" % (len(body), body) for body in bodies(encoding, 24, 2)]


@contextlib.asynccontextmanager
async def serving(directory: Path, known: Sequence[Connection]) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """Yield a function that sends a request of a known connection and waits for its answer, which must be 200."""
    config = GatewayConfig(KafkaSettings("127.0.0.1:1"), Topics("t"), directory, pseudonyms(b"key"), port=0)
    metrics, clock = Metrics(CollectorRegistry()), SystemClock()
    registry = Registry(config, metrics, clock)
    for one in known:
        registry.cache.apply(one.connection_id, one)
    link = _MemoryLink(config, metrics, clock)
    spool = cast(Spool, None)
    delivery = Delivery(link, spool, metrics, clock)
    activity = ActivityLog(config.topics.activity.name, link, spool, clock)
    messages = Messages(config.topics, config.user, clock)
    quarantine = Quarantine(spool, registry, messages, activity, metrics)
    replies = Replies(clock)
    acceptance = Acceptance(
        config.max_body_bytes,
        Authenticator(registry, clock),
        delivery,
        quarantine,
        activity,
        messages,
        Quotas(config.quota, clock),
        Turns(clock),
        metrics,
    )
    budget = Budget(config.max_held_bytes, config.retry_after)
    handler = Handler(config, acceptance, budget, replies, metrics, lambda: Health(ok=True))
    server = HttpServer(config, handler, replies, metrics, clock)
    delivering = asyncio.create_task(delivery.run())
    protocol: Any = server.connection()
    transport = _MemoryTransport()
    protocol.connection_made(transport)

    async def send(request: bytes) -> None:
        transport.answered.clear()
        protocol.data_received(request)
        await transport.answered.wait()

    try:
        yield send
    finally:
        await cancel(delivering)
        acceptance.close()
    assert transport.status == {b"200"}, transport.status


_made: dict[Encoding, list[bytes]] = {}


def _requests_of(encoding: Encoding) -> list[bytes]:
    if encoding not in _made:
        _made[encoding] = requests(encoding, logs_path())
    return _made[encoding]


async def _serve(encoding: Encoding, rounds: int, directory: Path) -> None:
    async with serving(directory, [connection()]) as send:
        for _ in range(rounds):
            for request in _requests_of(encoding):
                await send(request)


def serve(encoding: Encoding, rounds: int) -> int:
    """Answer every prepared request `rounds` times; return how many that are."""
    with tempfile.TemporaryDirectory() as directory:
        uvloop.run(_serve(encoding, rounds, Path(directory)))
    return rounds * len(_requests_of(encoding))


def main() -> None:
    """Print a profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=50)
    given = parser.parse_args()
    encoding = Encoding.JSON if given.json else Encoding.PROTOBUF
    serve(encoding, 2)
    profile = cProfile.Profile()
    profile.enable()
    serve(encoding, given.rounds)
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
