"""Metrics and traces of any client: built once a process from plain dicts in OTLP/JSON shape, then spliced.

What they tell of the run's usage is built for each body and put behind the rest, because it must be true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from hashlib import blake2b
from typing import Any

from tallystream.simulator.model import Signal
from tallystream.simulator.wire import Wire

SESSION = "00000000-0000-4000-8000-00000c0de000"
"""Placeholder for the session id."""
TIME = 0x1717_1717_1717_1717
"""Placeholder for the time: 8 bytes that occur nowhere else, in both encodings."""
BOUNDS = [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0]
"""OpenTelemetry's own buckets of a histogram."""
Document = Callable[[Signal], tuple[dict[str, Any], int]]
"""Makes a body, and says how many spans or points it holds."""


def value(given: object, *, quoted: bool = False) -> dict[str, Any]:
    """Return an AnyValue; `quoted` writes an int as a string."""
    if isinstance(given, str):
        return {"stringValue": given}
    if isinstance(given, bool):
        return {"boolValue": given}
    if isinstance(given, list):
        return {"arrayValue": {"values": [value(one, quoted=quoted) for one in given]}}
    if isinstance(given, int):
        return {"intValue": str(given) if quoted else given}
    return {"doubleValue": given}


def attributes(pairs: Iterable[tuple[str, object]], *, quoted: bool = False) -> list[dict[str, Any]]:
    """Return KeyValues."""
    return [{"key": key, "value": value(given, quoted=quoted)} for key, given in pairs]


def run_id(session_id: str, at_ns: int, what: str, bits: int) -> str:
    """Return an id in hex of something that a run did, without a random number, which would change the fleet."""
    return blake2b(f"{session_id}|{at_ns}|{what}".encode(), digest_size=bits // 8).hexdigest()


def buckets(numbers: Iterable[float]) -> list[int]:
    """Return how many of the numbers lie in each bucket."""
    counts = [0] * (len(BOUNDS) + 1)
    for number in numbers:
        counts[sum(bound < number for bound in BOUNDS)] += 1
    return counts


@cache
def _made(make: Document, signal: Signal) -> tuple[dict[str, Any], int]:
    return make(signal)


@cache
def _template(make: Document, signal: Signal, wire: Wire) -> bytes:
    return wire.document(_made(make, signal)[0])


def body(
    make: Document, signal: Signal, wire: Wire, session_id: str, at_ns: int, told: Mapping[str, Any] | None = None,
    more: int = 0,
) -> tuple[bytes, int]:  # fmt: skip
    """Return a body of one of the two signals and how many spans or points it holds.

    `told` is a document with `more` of them, which the body has behind the rest.
    """
    document, records = _made(make, signal)
    if told is None:
        data = _template(make, signal, wire)
    elif wire.content_type == "application/json":
        data = wire.document({name: [*parts, *told[name]] for name, parts in document.items()})
    else:
        data = _template(make, signal, wire) + wire.document(told)  # protobuf merges what is put behind it
    records += more
    if wire.content_type == "application/json":
        data = data.replace(b"%d" % TIME, b"%d" % at_ns)
    else:
        data = data.replace(TIME.to_bytes(8, "little"), at_ns.to_bytes(8, "little"))
    return data.replace(SESSION.encode(), session_id.encode()), records
