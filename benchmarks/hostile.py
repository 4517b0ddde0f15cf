"""What hostile bodies cost the gateway and its other clients: answer, memory, the longest wait of a neighbour.

    python -m benchmarks.hostile [--shape "empty scopes" ...] [--report docs/benchmarks.md]

One connection sends a small request 50 times a second. Beside it, another connection sends each hostile body once, as
gzip (`tests/support/hostile_bodies.py`) and from a process of its own, and then a few inputs that are not one body:
empty gzip members, three bodies at once, bodies that never end. The gateway's peak memory is reset before each. A wait
is compared with the longest one of two seconds without a hostile body, on the same machine just before.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import multiprocessing
import os
import statistics
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import uvloop
from benchmarks.gateway import Load, peak_of, read_answer, requests_of, rss_of
from benchmarks.neighbours import FLOOD_ID
from benchmarks.report import replace_section
from tests.support.gateway import INGEST_ID, GatewayProcess, connection, logs_path, write
from tests.support.hostile_bodies import MIB, SHAPES, around, nested, repeated
from tests.support.open_kafka import OpenKafka
from tests.support.waiting import eventually

from tallystream.schemas.otlp import Encoding
from tallystream.streams.kafka.topics import Topics

EVERY = 0.02
"""Seconds between two requests of the neighbour."""


@dataclass(frozen=True)
class HostileInput:
    """Bodies that are sent at the same time, as gzip."""

    name: str
    encoding: Encoding
    bodies: Sequence[bytes]
    plain: int
    """Bytes after decompression, of all together."""
    stalled: bool = False
    """The last byte of each is never sent; after two seconds the sender gives up."""


@dataclass
class HostileOutcome:
    """What one input did."""

    answers: list[str] = field(default_factory=list)
    before: float = 0.0
    """Memory in MiB."""
    peak: float = 0.0
    waits: list[float] = field(default_factory=list)
    """Seconds that the neighbour waited for each of its answers."""


def inputs(names: Sequence[str]) -> Iterator[HostileInput]:
    """Yield the inputs, all of them or those that are named."""
    for name, (encoding, build) in SHAPES.items():
        if not names or name in names:
            plain = build()
            yield HostileInput(name, encoding, [gzip.compress(plain, 6)], len(plain))
    if names:
        return
    empty = gzip.compress(b"")
    yield HostileInput("200,000 empty gzip members", Encoding.PROTOBUF, [empty * 200_000], 0)
    objects = around(repeated(b"{},", 32 * MIB) + b"{}")
    yield HostileInput("empty objects, three at once", Encoding.JSON, [gzip.compress(objects)] * 3, 3 * len(objects))
    records = nested(repeated(b"\x12\x00", 32 * MIB), 2, 1)
    yield HostileInput(
        "empty records, three at once", Encoding.PROTOBUF, [gzip.compress(records)] * 3, 3 * len(records)
    )
    long = os.urandom(60 * MIB)
    yield HostileInput("three of 60 MiB that never end", Encoding.PROTOBUF, [long] * 3, 3 * len(long), stalled=True)
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [bomb.compress(bytes(MIB)) for _ in range(1024)] + [bomb.flush()]
    yield HostileInput("1 GiB of zeros", Encoding.PROTOBUF, [b"".join(parts)], 1024 * MIB)


def forget_peak(pid: int) -> None:
    """Let VmHWM begin again at the present size."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def neighbour(port: int, waits: list[float]) -> None:
    """Send small requests until cancelled."""
    requests = requests_of(Load("protobuf, 24 records"), logs_path(INGEST_ID))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    loop = asyncio.get_running_loop()
    try:
        for turn in range(1_000_000):
            began = loop.time()
            writer.write(requests[turn % len(requests)])
            answer = await read_answer(reader)
            waits.append(loop.time() - began)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode())
            await asyncio.sleep(EVERY)
    finally:
        writer.close()


async def _without_its_end(body: bytes) -> AsyncIterator[bytes]:
    yield body[:-1]
    await asyncio.Event().wait()


async def send(url: str, given: HostileInput) -> list[str]:
    """Send all bodies at the same time; return what was answered."""

    async def one(session: aiohttp.ClientSession, body: bytes) -> str:
        headers = {"Content-Type": given.encoding.value, "Content-Encoding": "gzip"}
        data: object = body
        if given.stalled:
            del headers["Content-Encoding"]
            headers["Content-Length"] = str(len(body))
            data = _without_its_end(body)
        try:
            async with session.post(url, data=data, headers=headers) as response:
                await response.read()
                return str(response.status)
        except TimeoutError:
            return "given up"
        except aiohttp.ClientError:
            return "closed"

    timeout = aiohttp.ClientTimeout(total=2 if given.stalled else 120)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        return list(await asyncio.gather(*(one(session, body) for body in given.bodies)))


def _send_apart(url: str, given: HostileInput, told: Connection) -> None:
    told.send(uvloop.run(send(url, given)))


async def send_apart(url: str, given: HostileInput) -> list[str]:
    """Do the same as `send` in another process, because sending 180 MiB would hold up the neighbour here."""
    heard, told = multiprocessing.get_context("fork").Pipe(duplex=False)
    sender = multiprocessing.get_context("fork").Process(target=_send_apart, args=(url, given, told))
    sender.start()
    try:
        answers: list[str] = await asyncio.to_thread(heard.recv)
    finally:
        await asyncio.to_thread(sender.join)
    return answers


async def measure(process: GatewayProcess, given: HostileInput, url: str) -> tuple[HostileOutcome, list[float]]:
    """Return what the input did, and the neighbour's waits in the two seconds before."""
    quiet: list[float] = []
    outcome = HostileOutcome()
    beside = asyncio.create_task(neighbour(process.port, quiet))
    await asyncio.sleep(2)
    beside.cancel()
    beside = asyncio.create_task(neighbour(process.port, outcome.waits))
    forget_peak(process.pid)
    outcome.before = rss_of(process.pid)
    outcome.answers = await send_apart(url, given)
    await asyncio.sleep(0.5)
    if beside.done():
        await beside
    beside.cancel()
    outcome.peak = peak_of(process.pid)
    return outcome, quiet


@contextmanager
def gateway(directory: Path) -> Iterator[GatewayProcess]:
    """Run a gateway with two connections."""
    with ExitStack() as stack:
        kafka = stack.enter_context(OpenKafka(directory / "kafka")).settings
        flooder = connection("codex", FLOOD_ID, connection_id="codex-f100")
        asyncio.run(write(kafka, Topics("hostile"), connection(), flooder))
        process = GatewayProcess(kafka, "hostile", directory / "gateway")
        process.start()
        stack.callback(process.end)
        eventually(process.ready, "the gateway is ready")
        yield process


def size(count: int) -> str:
    """Return a number of bytes for people."""
    return (
        f"{count:,} B" if count < 10_000 else f"{count / 1024:,.0f} KiB" if count < MIB else f"{count / MIB:,.1f} MiB"
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=[])
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    lines = [
        "| input | sent | decompressed | answer | memory before | peak | neighbour waits at most | without it |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    usual: list[float] = []
    with tempfile.TemporaryDirectory() as directory, gateway(Path(directory)) as process:
        url = process.url + logs_path(FLOOD_ID)
        for given in inputs(options.shape):
            outcome, quiet = uvloop.run(measure(process, given, url))
            usual += quiet
            sent = size(sum(map(len, given.bodies)))
            lines.append(
                f"| {given.name} | {sent} | {size(given.plain)} | {', '.join(outcome.answers)}"
                f" | {outcome.before:.1f} MiB | {outcome.peak:.1f} MiB | {1e3 * max(outcome.waits):.0f} ms"
                f" | {1e3 * max(quiet):.0f} ms |"
            )
            print(lines[-1], flush=True)
    text = "\n".join(lines) + f"\n\nWithout a hostile body the median wait was {1e3 * statistics.median(usual):.1f} ms."
    print(text.splitlines()[-1])
    if options.report:
        replace_section(options.report, "hostile", f"{text}\n")


if __name__ == "__main__":
    main()
