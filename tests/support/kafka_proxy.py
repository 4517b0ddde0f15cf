"""A proxy in front of a broker that sees each request, may refuse it, lose connections, or withhold answers."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from tallystream.streams.kafka.settings import KafkaSettings

PRODUCE, LIST_OFFSETS, METADATA = 0, 2, 3
"""Kafka's keys of some kinds of requests."""
ANOTHER = 0.3
"""Seconds for which a refusal waits for a second request of the same connection."""
_HEAD = struct.Struct(">hhih")
_SIZE = struct.Struct(">i")


class ProxiedRequest(NamedTuple):
    """A request that goes through the proxy; `body` is what follows its header, of which the versions here know four
    fields.
    """

    kind: int
    version: int
    correlation: int
    body: bytes

    def answered(self, body: bytes) -> bytes:
        """Return the frame of an answer."""
        return _SIZE.pack(len(body) + 4) + struct.pack(">i", self.correlation) + body


@dataclass
class KafkaProxy:
    """The proxy. `kafka` is its address: clients learn its port instead of the broker's, so all they ask goes through
    it.
    """

    kafka: KafkaSettings
    withheld: frozenset[int] = frozenset()
    """Kinds of requests that reach the broker, and whose answers do not reach the client."""
    kept: int = 0
    """Answers that were withheld."""
    lost: int = 0
    """How many connections after the first one are closed at once."""
    connections: int = 0
    """Connections so far, those that were closed included."""

    def refusal(self, request: ProxiedRequest) -> bytes | None:
        """Return the answer to a request that is not to reach the broker, else None."""
        return None


class _Connection:
    """One client's connection and ours to the broker; `renamed` are the ports to swap in what the broker answers."""

    def __init__(self, proxy: KafkaProxy, renamed: tuple[bytes, bytes]) -> None:
        self._proxy = proxy
        self._renamed = renamed
        self._waiting = asyncio.Queue[bytes]()
        self._more = asyncio.Event()
        self._silent: set[int] = set()

    async def read(self, client: asyncio.StreamReader) -> None:
        async for frame in _frames(client):
            self._waiting.put_nowait(frame)
            self._more.set()
        self._waiting.put_nowait(b"")

    async def ask(self, broker: asyncio.StreamWriter, client: asyncio.StreamWriter) -> None:
        while frame := await self._waiting.get():
            kind, version, correlation, client_id = _HEAD.unpack_from(frame)
            request = ProxiedRequest(kind, version, correlation, frame[_HEAD.size + max(0, client_id) :])
            if (refusal := self._proxy.refusal(request)) is not None:
                await self._another()
                client.write(refusal)
                continue
            if kind in self._proxy.withheld:
                self._silent.add(correlation)
            broker.write(_SIZE.pack(len(frame)) + frame)
        broker.close()

    async def _another(self) -> None:
        """If the client sends several requests at once, return when the next one has been sent."""
        self._more.clear()
        if self._waiting.empty():
            with suppress(TimeoutError):
                async with asyncio.timeout(ANOTHER):
                    await self._more.wait()

    async def answer(self, broker: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        async for frame in _frames(broker):
            if _SIZE.unpack_from(frame)[0] in self._silent:
                self._proxy.kept += 1
                continue
            client.write(_SIZE.pack(len(frame)) + frame.replace(*self._renamed))
        client.close()


async def _frames(source: asyncio.StreamReader) -> AsyncIterator[bytes]:
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            yield await source.readexactly(_SIZE.unpack(await source.readexactly(4))[0])


@asynccontextmanager
async def through(proxy: KafkaProxy) -> AsyncIterator[KafkaProxy]:
    """Run the proxy in front of the broker at `proxy.kafka`, which is replaced by its own address."""
    host, _, port = proxy.kafka.bootstrap.rpartition(":")
    writers: list[asyncio.StreamWriter] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        proxy.connections += 1
        if 1 < proxy.connections <= 1 + proxy.lost:
            writer.close()
            return
        answers, requests = await asyncio.open_connection(host, int(port))
        writers.append(requests)
        one = _Connection(proxy, (_SIZE.pack(int(port)), _SIZE.pack(own)))
        await asyncio.gather(one.read(reader), one.ask(requests, writer), one.answer(answers, writer))

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    own: int = server.sockets[0].getsockname()[1]
    proxy.kafka = replace(proxy.kafka, bootstrap=f"127.0.0.1:{own}")
    try:
        yield proxy
    finally:
        server.close()
        for writer in writers:
            writer.close()
        for writer in writers:
            with suppress(OSError):
                await writer.wait_closed()
