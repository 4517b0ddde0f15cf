"""What reading witnesses costs the gateway, with recorded traffic of clients, with and without, turn by turn.

    python -m benchmarks.witnesses FOLDER [--turns 9] [--report docs/benchmarks.md]

FOLDER holds recorded runs of clients with all their signals (`tests/support/replay.py` has the format). `decoding` is
the part that witnesses change, by itself: decoding and making messages. `gateway` is two gateways, one of them with
TALLYSTREAM_COVERAGE=false, on a Kafka of their own, which get all requests as they were recorded; what is counted is
the CPU time of each process.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import uvloop
from benchmarks.gateway import Server, cpu_of, gateway, prepare, read_answer
from benchmarks.report import replace_section
from tests.support.gateway import logs_path
from tests.support.open_kafka import OpenKafka
from tests.support.replay import Body, Capture

from tallystream.schemas.connections import Signal
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp import Encoding
from tallystream.streams.gateway.ingest import Messages, decode
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import SystemClock

Request = tuple[bytes, Encoding, Signal]
SIGNALS: tuple[Signal, ...] = ("logs", "traces", "metrics")
ROUNDS = 5
"""Times that all requests are decoded in one turn."""
CLIENTS = 32
TURN = 1_500
"""Requests of one turn of a gateway, about: enough for half a second of CPU time."""


def bodies_of(folder: Path) -> dict[str, list[Body]]:
    """Return the requests by client, the first part of each run's name."""
    found: dict[str, list[Body]] = defaultdict(list)
    for run in sorted(one for one in folder.iterdir() if (one / "truth.json").exists()):
        found[run.name.partition("-")[0]] += [body for body in Capture(run).bodies() if body.signal in SIGNALS]
    return found


def request_of(body: Body) -> Request:
    """Return a request's decompressed body, and what it is."""
    headers = {name.lower(): value for name, value in body.headers.items()}
    data = gzip.decompress(body.data) if body.data[:2] == b"\x1f\x8b" else body.data
    encoding = Encoding.JSON if "json" in headers["content-type"] else Encoding.PROTOBUF
    return data, encoding, next(one for one in SIGNALS if one == body.signal)


def wire_of(body: Body) -> bytes:
    """Return the HTTP request, ready to be written."""
    head = f"POST {logs_path(signal_=body.signal)} HTTP/1.1\r\nHost: benchmark\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body.data), body.data)


def decoded(requests: Sequence[Request], messages: Messages, *, witnessed: bool) -> float:
    """Return the CPU seconds to decode the requests and make messages of them."""
    began = time.process_time()
    for body, encoding, signal in requests:
        try:
            found = decode(body, encoding, signal, witnessed=witnessed)
        except InvalidBodyError:
            continue
        if found.logs is not None:
            messages.usage(found.logs.packs, "codex-7f3a")
        if found.witnesses:
            messages.witnesses(found.witnesses, "codex-7f3a")
    return time.process_time() - began


async def _send(port: int, requests: Sequence[bytes]) -> None:
    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in requests[number::CLIENTS]:
            writer.write(request)
            answer = await read_answer(reader)
            if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400")):  # some clients were recorded with a bad body
                raise RuntimeError(answer.decode())
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*map(client, range(CLIENTS)))


def answered(server: Server, requests: Sequence[bytes]) -> float:
    """Return the CPU seconds that a gateway spends on requests."""
    before = cpu_of(server.pid)
    uvloop.run(_send(server.port, requests))
    return cpu_of(server.pid) - before


def row(name: str, requests: Sequence[Body], sides: Sequence[tuple[float, float]], number: int) -> str:
    """Return a row of the table: `sides` are CPU seconds without and with witnesses, of `number` requests each."""
    ratio = statistics.median(with_ / without for without, with_ in sides)
    numbers = ", ".join(str(sum(one.signal == signal for one in requests)) for signal in SIGNALS)
    without, with_ = (1e6 * statistics.median(side) / number for side in zip(*sides, strict=True))
    return f"| {name} | {numbers} | {without:.0f} | {with_:.0f} | {ratio:.2f} |"


def measured_decoding(bodies: Sequence[Body], turns: int) -> tuple[list[tuple[float, float]], int]:
    """Return the CPU seconds of each turn, without and with, and the number of requests in a turn."""
    messages = Messages(Topics("t"), str, SystemClock())
    every = [request_of(body) for body in bodies] * ROUNDS
    decoded(every, messages, witnessed=True)
    turn = [(decoded(every, messages, witnessed=False), decoded(every, messages, witnessed=True)) for _ in range(turns)]
    return turn, len(every)


def measured_gateways(
    without: Server, with_: Server, bodies: Sequence[Body], turns: int
) -> tuple[list[tuple[float, float]], int]:
    """Return the CPU seconds of each turn, without and with, and the number of requests in a turn."""
    every = [wire_of(body) for body in bodies] * max(1, TURN // len(bodies))
    for server in (without, with_):
        answered(server, every)
    return [(answered(without, every), answered(with_, every)) for _ in range(turns)], len(every)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    lines = [
        "| what | requests: logs, traces, metrics | CPU us a request, without | with | with : without |",
        "|---|---|---:|---:|---:|",
    ]
    clients = bodies_of(options.folder)
    for client, bodies in clients.items():
        lines.append(row(f"decoding, {client}", bodies, *measured_decoding(bodies, options.turns)))
        print(lines[-1], flush=True)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.sched_setaffinity(0, {1} if (os.cpu_count() or 1) > 1 else {0})
        kafka = stack.enter_context(OpenKafka(directory / "kafka")).settings
        prefix = f"bench{os.getpid()}"
        asyncio.run(prepare(kafka, prefix))
        without, with_ = (
            stack.enter_context(gateway(kafka, prefix, directory / setting, TALLYSTREAM_COVERAGE=setting))
            for setting in ("false", "true")
        )
        for client, bodies in clients.items():
            lines.append(row(f"gateway, {client}", bodies, *measured_gateways(without, with_, bodies, options.turns)))
            print(lines[-1], flush=True)
    if options.report:
        replace_section(options.report, "witnesses", "\n".join(lines))


if __name__ == "__main__":
    main()
