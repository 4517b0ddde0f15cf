"""Detects the signal of a body and counts its records.

A base URL posted to verbatim says nothing about the signal, and a client whose log endpoint is another signal's URL
would otherwise get a 200 without being counted. In JSON the first key names the signal, in protobuf the shape of the
records does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tallystream.schemas.connections import Signal
from tallystream.schemas.otlp import json_frames, protobuf_frames
from tallystream.schemas.otlp.encoding import Encoding
from tallystream.schemas.otlp.json_values import entries, get, invalid, utf8
from tallystream.schemas.otlp.limits import LIMITS, DecodingBudget, Limits
from tallystream.schemas.otlp.records import BrokenRecord

_POINTS: Final = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")


def inspect(body: bytes, encoding: Encoding, signal: Signal, limits: Limits = LIMITS) -> int:
    """Return how many log records, metric points or spans the body holds; undecodable ones are left out.

    Raises:
        InvalidBodyError: it is not OTLP, or clearly another signal's, or exceeds a limit.

    """
    if encoding is Encoding.JSON:
        return sum(_json_sizes(utf8(body), signal, DecodingBudget(limits)))
    protobuf_frames.refuse_other_shapes(body, signal, limits)
    items = protobuf_frames.Frames(body, DecodingBudget(limits)).items()
    if signal == "metrics":
        return sum(protobuf_frames.points(body, item.record) for item in items)
    return sum(1 for _ in items)


def detect_signal(body: bytes, encoding: Encoding) -> Signal:
    """Return the signal of a body that came without one. An empty request is treated as logs.

    Raises:
        InvalidBodyError: it is not OTLP.

    """
    if encoding is Encoding.JSON:
        return json_frames.signal_of(utf8(body))
    return protobuf_frames.shape(body, "logs", LIMITS)


def _json_sizes(body: bytes, signal: Signal, tally: DecodingBudget) -> Iterator[int]:
    """Yield how much each record, metric or span counts for."""
    broken = ""
    sound = False
    for _, _, record in json_frames.walk(body, signal, tally):
        if isinstance(record, BrokenRecord):
            broken = broken or record.why
            continue
        sound = True
        if signal != "metrics":
            yield 1
            continue
        metric: Any = record.parsed()[0] if isinstance(record, json_frames.Part) else record
        if type(metric) is dict:
            data = (get(metric, kind) for kind in _POINTS)
            yield sum(len(entries(found, "dataPoints")) for found in data if type(found) is dict)
    if broken and not sound:
        raise invalid(broken)
