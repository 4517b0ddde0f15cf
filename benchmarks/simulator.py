"""The speed of the simulator: generating bodies, computing the truth, sending to a server that only reads.

    python benchmarks/simulator.py [REQUESTS]

CPU seconds of this process, so that a busy machine matters little; the server is a separate process. What the
simulator needs for a token event must stay well below what a gateway needs for it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Literal

from aiohttp import web

from tallystream.simulator import Fleet, FleetConfig, Load, Truth, run, target
from tallystream.simulator.model import ClientName
from tallystream.simulator.options import Encoding

START_NS = 1_795_290_000_000_000_000


def line(what: str, cpu_s: float, responses: int, records: int, size: int, bodies: int) -> None:
    """Print one result."""
    print(
        f"{what:36} {responses / cpu_s:>9,.0f} token events/s {records / cpu_s:>10,.0f} records/s"
        f" {bodies / cpu_s:>8,.0f} bodies/s {size / cpu_s / 1e6:>7,.0f} MB/s  ({cpu_s:.2f} CPU s)"
    )


def config(requests: int, encoding: Encoding, client: ClientName | Literal["mixed"] = "codex") -> FleetConfig:
    """Return a fleet like that of the acceptance run."""
    return FleetConfig(200, requests, 7, START_NS, client=client, encoding=encoding, duplicates=0.1, late=0.05)


def generate(requests: int, encoding: Encoding, client: ClientName | Literal["mixed"] = "codex") -> None:
    """Generate only."""
    bodies = records = responses = size = 0
    before = time.process_time()
    for request in Fleet(config(requests, encoding, client)):
        bodies += 1
        records += request.records
        responses += len(request.responses)
        size += len(request.body)
    line(f"generate {client} {encoding}", time.process_time() - before, responses, records, size, bodies)


def account(requests: int) -> None:
    """Compute the truth of bodies generated before, then price it."""
    fleet = list(Fleet(config(requests, "protobuf", "mixed")))
    truth = Truth(config(requests, "protobuf", "mixed"))
    before = time.process_time()
    for request in fleet:
        truth.begin(request)
        truth.end(request, 200)
    middle = time.process_time()
    truth.document()
    after = time.process_time()
    sent = truth.sent
    line(
        "truth of mixed: outcomes, as it runs",
        middle - before,
        sent.token_records,
        sent.records,
        sent.bytes,
        len(fleet),
    )
    line(
        "truth of mixed: dollars, at the end", after - middle, sent.token_records, sent.records, sent.bytes, len(fleet)
    )


def serve(port: Connection) -> None:
    """Read every body and answer 200."""

    async def main() -> None:
        async def handle(request: web.BaseRequest) -> web.Response:
            await request.read()
            return web.Response()

        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


@contextmanager
def server() -> Iterator[str]:
    """Run the server for the duration of the block."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.kill()
        process.join()


def send(requests: int, client: ClientName | Literal["mixed"]) -> None:
    """Send everything and compute the truth."""
    with server() as url:
        before = time.process_time()
        report = asyncio.run(run(config(requests, "protobuf", client), target(url), Load(concurrency=32)))
        cpu_s = time.process_time() - before
    line(f"{client}: generate, send, keep truth", cpu_s, report.responses, report.records, report.bytes, report.bodies)
    print(f"{'':36} {report.bodies / report.seconds:,.0f} requests/s of wall time, {report.percentiles()}")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    generate(count, "protobuf")
    generate(count, "json")
    generate(count, "protobuf", "claude")
    generate(count, "json", "claude")
    generate(count // 4, "json", "gemini")
    generate(count // 2, "protobuf", "mixed")
    account(count // 4)
    send(count, "codex")
    send(count // 4, "mixed")
