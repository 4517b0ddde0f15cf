"""How fast logs requests are normalised on one core, compared with upper bounds.

    python -m benchmarks.normalise [--seconds 1.0] [--records 24] [--responses 2]

Limits, in the same process and on the same bodies: decoding protobuf whole with the official classes (what a server
without a lazy schema must do at least), and orjson.loads alone (what any JSON server must do). Ratios hold across
machines, records a second do not. CPU time, best of many rounds.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.support.otlp_bodies import AT_NS, Group, codex_noise, codex_response, encode

from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.packing import messages

RESOURCE = {"service.name": "codex_exec", "service.version": "0.169.0", "env": "prod", "host.name": "devbox-01"}


def bodies(encoding: Encoding, records: int, responses: int, number: int = 40) -> list[bytes]:
    """Return requests of Codex's shape: `records` each, of which `responses` cost."""
    found = []
    for body in range(number):
        session = f"01a1ffa0-40af-7151-9d80-{body:012x}"
        noise = itertools.cycle(codex_noise(session))
        group = [next(noise) for _ in range(records - responses)]
        for place in range(responses):
            group.insert((place + 1) * len(group) // responses, codex_response(session, at_ns=AT_NS + place))
        found.append(encode([Group(group, dict(RESOURCE))], encoding))
    return found


def rate(work: Callable[[bytes], object], requests: Sequence[bytes], records: int, seconds: float) -> float:
    """Return records a CPU second, of the best round."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.process_time_ns()
        for body in requests:
            work(body)
        best = min(best, (time.process_time_ns() - start) / 1e9)
    return records * len(requests) / best


def decode_whole(body: bytes) -> object:
    """Decode with the official classes and read every attribute, as a server without a lazy schema does."""
    request = ExportLogsServiceRequest.FromString(body)
    return [
        {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in record.attributes}
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--records", type=int, default=24, help="in a request")
    parser.add_argument("--responses", type=int, default=2, help="of these that cost")
    options = parser.parse_args()
    limits: dict[Encoding, tuple[str, Callable[[bytes], object]]] = {
        Encoding.PROTOBUF: ("opentelemetry-proto", decode_whole),
        Encoding.JSON: ("orjson.loads alone", orjson.loads),
    }
    for encoding, (name, limit) in limits.items():
        requests = bodies(encoding, options.records, options.responses)
        counted = sum(len(pack.events) for body in requests for pack in normalise_logs(body, encoding).packs)
        assert counted == options.responses * len(requests)

        def packed(body: bytes, encoding: Encoding = encoding) -> object:
            return [
                message
                for pack in normalise_logs(body, encoding).packs
                for message in messages(pack, "codex-7f3a", lambda _: "u_0123456789abcdef")
            ]

        ours, whole, theirs = (
            rate(work, requests, options.records, options.seconds)
            for work in (lambda body, encoding=encoding: normalise_logs(body, encoding), packed, limit)
        )
        size = sum(map(len, requests)) // len(requests)
        print(f"{encoding.name.lower()}: {size:,} bytes and {options.records} records a request")
        print(f"  normalise                {ours:>12,.0f} records/s  {1e6 / ours:6.2f} us a record")
        print(f"  normalise and pack       {whole:>12,.0f} records/s  {1e6 / whole:6.2f} us a record")
        print(f"  {name:<24} {theirs:>12,.0f} records/s: normalising runs at {ours / theirs:.2f} of it")


if __name__ == "__main__":
    main()
