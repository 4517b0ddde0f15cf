"""What reading witnesses costs the gateway, with recorded traffic of clients, with and without, turn by turn.

    python -m benchmarks.witnesses FOLDER [--turns 9] [--report docs/benchmarks.md]

FOLDER holds recorded runs of clients with all their signals (`tests/support/replay.py` has the format). `decoding` is
the part that witnesses change, by itself: decoding and making messages. `gateway` is two gateways, one of them with
TALLYSTREAM_COVERAGE=false, on a Kafka of their own, which get all requests as they were recorded; what is counted is
the CPU time of each process.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import replace_section
from tests.support.replay import Capture

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


def requests_of(folder: Path) -> dict[str, list[Request]]:
    """Return the decompressed requests by client, the first part of each run's name."""
    found = defaultdict(list)
    for run in sorted(one for one in folder.iterdir() if (one / "truth.json").exists()):
        for body in Capture(run).bodies():
            headers = {name.lower(): value for name, value in body.headers.items()}
            data = gzip.decompress(body.data) if body.data[:2] == b"\x1f\x8b" else body.data
            encoding = Encoding.JSON if "json" in headers["content-type"] else Encoding.PROTOBUF
            signal = next((one for one in SIGNALS if one == body.signal), None)
            if signal is not None:
                found[run.name.partition("-")[0]].append((data, encoding, signal))
    return found


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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    messages = Messages(Topics("t"), str, SystemClock())
    lines = [
        "| client | requests: logs, traces, metrics | us a request, without | with | with : without |",
        "|---|---|---:|---:|---:|",
    ]
    for client, requests in requests_of(options.folder).items():
        every = requests * ROUNDS
        decoded(every, messages, witnessed=True)
        without, with_ = [], []
        for _ in range(options.turns):
            without.append(decoded(every, messages, witnessed=False))
            with_.append(decoded(every, messages, witnessed=True))
        ratio = statistics.median(b / a for a, b in zip(without, with_, strict=True))
        numbers = ", ".join(str(sum(one[2] == signal for one in requests)) for signal in SIGNALS)
        us = [1e6 * statistics.median(side) / len(every) for side in (without, with_)]
        lines.append(f"| {client} | {numbers} | {us[0]:.0f} | {us[1]:.0f} | {ratio:.2f} |")
        print(lines[-1], flush=True)
    if options.report:
        replace_section(options.report, "witnesses", "\n".join(lines))


if __name__ == "__main__":
    main()
