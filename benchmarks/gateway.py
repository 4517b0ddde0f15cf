"""What a gateway process can take, and what a request costs it, beside what aiohttp costs by itself.

    python -m benchmarks.gateway [--seconds 5] [--clients 32] [--rate 400] [--kafka HOST:PORT]

Two servers get the same bodies from the same generator: ours, which answers after Kafka's ack, and one that only reads
the body and answers 200. Each is saturated, then offered `--rate` requests a second. CPU time is the server process's
own, from /proc, so it holds on a busy machine where requests a second do not. Without --kafka an embedded broker is
started. Bodies are of Codex's shape, 24 records of which 2 cost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import web
from benchmarks.normalise import bodies
from tests.support.gateway import GatewayProcess, connection, logs_path, percentile, write
from tests.support.product import free_port
from tests.support.waiting import eventually

from tallystream.schemas.otlp import Encoding
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics

RECORDS, RESPONSES = 24, 2
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Result:
    """One phase: latencies in seconds, CPU seconds of the server."""

    seconds: float
    latencies: list[float]
    cpu: float

    def line(self, name: str) -> str:
        """Return the table's row."""
        count = len(self.latencies)
        p50, p99 = (1e3 * percentile(self.latencies, share) for share in (0.5, 0.99))
        per_request = 1e6 * self.cpu / count
        rate = count / self.seconds
        return f"{name:34} {rate:8.0f} {p50:8.2f} {p99:8.2f} {per_request:9.0f} {per_request / RECORDS:9.2f}"


def cpu_of(pid: int) -> float:
    """Return the CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def requests_of(path: str, encoding: Encoding) -> list[bytes]:
    """Return whole HTTP requests, ready to be written."""
    head = f"POST {path} HTTP/1.1\r\nHost: benchmark\r\nContent-Type: {encoding.value}\r\nContent-Length: "
    return [head.encode() + b"%d\r\n\r\n%b" % (len(body), body) for body in bodies(encoding, RECORDS, RESPONSES)]


async def drive(
    port: int, requests: Sequence[bytes], clients: int, seconds: float, rate: float | None, pid: int
) -> Result:
    """Send requests over `clients` connections, as fast as answers come or `rate` a second in all."""
    latencies: list[float] = []
    started = time.perf_counter()
    end = started + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number
        due = started + number / (rate or 1)
        while (now := time.perf_counter()) < end:
            if rate is not None:
                if due > now:
                    await asyncio.sleep(due - now)
                due += clients / rate
            sent = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            turn += 1
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode())
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - sent)
        writer.close()
        await writer.wait_closed()

    before = cpu_of(pid)
    await asyncio.gather(*map(client, range(clients)))
    return Result(time.perf_counter() - started, latencies, cpu_of(pid) - before)


async def bare(port: int) -> None:
    """Serve a handler that reads the body and answers."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        await request.content.read()
        return web.Response(body=b"{}", content_type="application/json")

    runner = web.ServerRunner(web.Server(handler, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


@contextmanager
def bare_process() -> Iterator[tuple[int, int]]:
    """Run `bare` in a process of its own; give its port and pid."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.gateway", "--bare", str(port)])
    try:
        eventually(lambda: listens(port), "the bare server listens")
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    """Return whether something accepts connections."""
    try:
        asyncio.run(_connect(port))
    except OSError:
        return False
    return True


async def _connect(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--kafka")
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        uvloop.run(bare(args.bare))
        return
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if args.kafka is None:
            from tallystream.streams.embedded.broker import EmbeddedKafka

            args.kafka = stack.enter_context(EmbeddedKafka(directory / "kafka")).bootstrap
        kafka = KafkaSettings(args.kafka)
        prefix = f"bench{os.getpid()}"
        asyncio.run(write(kafka, Topics(prefix), connection()))
        gateway = GatewayProcess(kafka, prefix, directory / "data")
        gateway.start()
        stack.callback(gateway.end)
        eventually(gateway.ready, "the gateway is ready")
        bare_port, bare_pid = stack.enter_context(bare_process())
        print(f"{'':34} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'us/req':>9} {'us/record':>9}")
        for encoding in (Encoding.PROTOBUF, Encoding.JSON):
            requests = requests_of(logs_path(), encoding)
            for name, port, pid in (("bare aiohttp", bare_port, bare_pid), ("gateway", gateway.port, gateway.pid)):
                uvloop.run(drive(port, requests, args.clients, 1.0, None, pid))
                for rate in (None, args.rate):
                    result = uvloop.run(drive(port, requests, args.clients, args.seconds, rate, pid))
                    offered = "saturated" if rate is None else f"{rate:.0f} req/s"
                    print(result.line(f"{name}, {encoding.name.lower()}, {offered}"), flush=True)


if __name__ == "__main__":
    main()
