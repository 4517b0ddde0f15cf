"""Whether a request costs the gateway more when it has more connections.

    python -m benchmarks.growth [--connections 10 2000] [--report docs/benchmarks.md]

The same requests come from few and from many connections, turn by turn in one process (`benchmarks.handler`). Each
connection has sent before. The figures are CPU time, so other programs on the machine change them little. The same
question about sessions is answered by `benchmarks.history`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
from benchmarks.handler import requests, serving
from benchmarks.report import machine, replace_section
from tests.support.gateway import connection, logs_path

from tallystream.schemas.otlp import Encoding

TURNS = 9
REQUESTS = 4_000
"""In a turn, of all connections together."""


async def measure(numbers: list[int], directory: Path) -> dict[int, float]:
    """Return the microseconds of CPU time of one request, by number of connections."""
    spent: dict[int, list[float]] = {number: [] for number in numbers}
    async with AsyncExitStack() as stack:
        sides = {}
        for number in numbers:
            ids = [f"growthIngestId{one:08d}" for one in range(number)]
            known = [connection("codex", one, connection_id=f"codex-{place:05d}") for place, one in enumerate(ids)]
            folder = directory / str(number)
            folder.mkdir()
            send = await stack.enter_async_context(serving(folder, known))
            body = requests(Encoding.PROTOBUF, logs_path(ids[0]))[0]
            made = [body.replace(ids[0].encode(), one.encode()) for one in ids]
            for request in made:
                await send(request)
            sides[number] = send, made
        for _ in range(TURNS):
            for number, (send, made) in sides.items():
                began = time.process_time()
                for place in range(REQUESTS):
                    await send(made[place % number])
                spent[number].append(1e6 * (time.process_time() - began) / REQUESTS)
                await asyncio.sleep(0)
    return {number: statistics.median(turns) for number, turns in spent.items()}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", nargs="+", type=int, default=[10, 100, 2_000])
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = uvloop.run(measure(given.connections, Path(directory)))
    first = found[given.connections[0]]
    lines = [
        f"{machine()}; median of {TURNS} turns of {REQUESTS:,} requests with 24 records.",
        "",
        "| connections | CPU us a request | to the first |",
        "|---:|---:|---:|",
        *(f"| {number:,} | {cost:.0f} | {cost / first:.2f}x |" for number, cost in found.items()),
    ]
    text = "\n".join(lines)
    print(text)
    if given.report:
        replace_section(given.report, "growth", f"{text}\n")


if __name__ == "__main__":
    main()
