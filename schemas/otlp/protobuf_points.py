"""Points of named metrics in protobuf."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError

from tallystream.schemas.otlp import wire
from tallystream.schemas.otlp.attributes import MapAttributes
from tallystream.schemas.otlp.limits import DecodingBudget, Limits
from tallystream.schemas.otlp.points import CUMULATIVE, MetricPoint
from tallystream.schemas.otlp.protobuf_frames import Frames, refuse_other_shapes
from tallystream.schemas.otlp.protobuf_frames import points as count_points
from tallystream.schemas.otlp.protobuf_messages import HistogramPointMessage, NumberPointMessage
from tallystream.schemas.otlp.protobuf_records import resource_attributes
from tallystream.schemas.otlp.records import Value

_SUM: Final = 7
_HISTOGRAM: Final = 9


def points(body: bytes, names: Collection[str], budget: DecodingBudget) -> Iterator[MetricPoint | int]:
    """Yield the number of points of each metric, and the points themselves of the named ones."""
    refuse_other_shapes(body, "metrics", budget.limits)
    wanted = frozenset(name.encode() for name in names)
    owner = None
    described: dict[str, Value] = {}
    for resource, _, metric in Frames(body, budget).items():
        yield count_points(body, metric)
        name = _name(body, metric)
        if name not in wanted:
            continue
        if owner is not resource:
            owner, described = resource, resource_attributes(body, resource, budget.limits)
        yield from _metric(body, metric, name.decode(), described, budget.limits)


def _name(body: bytes, metric: wire.Field) -> bytes:
    """Return a metric's name, which every exporter writes first."""
    for field in wire.fields(body, metric.start, metric.stop):
        if field.kind == wire.LEN and field.number == 1:
            return body[field.start : field.stop]
    return b""


def _metric(
    body: bytes, metric: wire.Field, name: str, resource: dict[str, Value], limits: Limits
) -> Iterator[MetricPoint]:
    data = None
    for field in wire.fields(body, metric.start, metric.stop):
        if field.kind == wire.LEN and field.number in (_SUM, _HISTOGRAM):
            data = field
    if data is None:
        return
    found: list[wire.Field] = []
    cumulative = False
    for field in wire.fields(body, data.start, data.stop):
        if field.kind == wire.LEN and field.number == 1:
            found.append(field)
        elif field.kind == wire.VARINT and field.number == 2:
            cumulative = field.start == CUMULATIVE
    for field in found:
        if field.stop - field.start > limits.record_bytes:
            continue
        raw = body[field.start : field.stop]
        try:
            point: Any = (NumberPointMessage if data.number == _SUM else HistogramPointMessage).FromString(raw)
        except DecodeError:
            continue
        if len(point.attributes) <= limits.attributes:
            value = point.sum if data.number == _HISTOGRAM else point.as_int or point.as_double
            times = point.start_time_unix_nano, point.time_unix_nano
            yield MetricPoint(name, cumulative, *times, value, resource, MapAttributes(point.attributes))
