"""Points of named metrics in protobuf."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from tallystream.schemas.otlp import wire
from tallystream.schemas.otlp.attributes import message_values
from tallystream.schemas.otlp.limits import DecodingBudget, Limits
from tallystream.schemas.otlp.points import CUMULATIVE, MetricPoint
from tallystream.schemas.otlp.protobuf_frames import Frames, refuse_other_shapes
from tallystream.schemas.otlp.protobuf_frames import points as count_points
from tallystream.schemas.otlp.protobuf_messages import (
    HistogramPointMessage,
    MetricMessage,
    NumberPointMessage,
    ResourceMessage,
)
from tallystream.schemas.otlp.protobuf_records import resource_attributes
from tallystream.schemas.otlp.records import Value

_SUM: Final = 7
_HISTOGRAM: Final = 9
PARSED: Final = 64 * 1024
"""Bytes of a metric that protobuf's own parser gets: one of a million empty points would take memory for each."""


class _Metric(NamedTuple):
    """A metric: the number of its points of any kind, and the points of its sum or histogram."""

    name: bytes
    total: int
    message: Any
    """Class of the points."""
    cumulative: bool
    raw: Sequence[bytes]


def points(body: bytes, names: Collection[str], budget: DecodingBudget) -> Iterator[MetricPoint | int]:
    """Yield the number of points of each metric, and the points themselves of the named ones."""
    refuse_other_shapes(body, "metrics", budget.limits)
    wanted = {name.encode(): name for name in names}
    owner = None
    described: dict[str, Value] = {}
    for resource, _, found in Frames(body, budget).items():
        metric = _parsed(body, found) or _walked(body, found)
        yield metric.total
        name = wanted.get(metric.name)
        if name is None or not metric.raw:
            continue
        if owner is not resource:
            owner, described = resource, _resource(body, resource, budget.limits)
        yield from _points(metric, name, described, budget.limits)


def _parsed(body: bytes, metric: wire.Field) -> _Metric | None:
    """Read a metric's frame with protobuf's own parser; None if that refuses it, or if it is too large."""
    if metric.stop - metric.start > PARSED:
        return None
    try:
        found = MetricMessage.FromString(body[metric.start : metric.stop])
    except DecodeError:
        return None
    count = 0
    data, message = None, NumberPointMessage
    for field, value in found.ListFields():
        if field.number == 1:
            continue
        count += len(value.points)
        if field.number == _SUM:
            data, message = value, NumberPointMessage
        elif field.number == _HISTOGRAM:
            data, message = value, HistogramPointMessage
    if data is None:
        return _Metric(found.name, count, message, False, ())
    return _Metric(found.name, count, message, data.temporality == CUMULATIVE, data.points)


def _walked(body: bytes, metric: wire.Field) -> _Metric:
    """Read a metric's frame field by field, as far as it can be read."""
    name, data = None, None
    for field in wire.fields(body, metric.start, metric.stop):
        if field.kind != wire.LEN:
            continue
        if name is None and field.number == 1:
            name = body[field.start : field.stop]
        elif field.number in (_SUM, _HISTOGRAM):
            data = field
    raw: list[bytes] = []
    cumulative = False
    for field in wire.fields(body, data.start, data.stop) if data is not None else ():
        if field.kind == wire.LEN and field.number == 1:
            raw.append(body[field.start : field.stop])
        elif field.kind == wire.VARINT and field.number == 2:
            cumulative = field.start == CUMULATIVE
    message = HistogramPointMessage if data is not None and data.number == _HISTOGRAM else NumberPointMessage
    return _Metric(name or b"", count_points(body, metric), message, cumulative, raw)


def _points(metric: _Metric, name: str, resource: dict[str, Value], limits: Limits) -> Iterator[MetricPoint]:
    histogram = metric.message is HistogramPointMessage
    for raw in metric.raw:
        if len(raw) > limits.record_bytes:
            continue
        try:
            point: Any = metric.message.FromString(raw)
        except DecodeError:
            continue
        if len(point.attributes) <= limits.attributes:
            value = point.sum if histogram else point.as_int or point.as_double
            times = point.start_time_unix_nano, point.time_unix_nano
            yield MetricPoint(name, metric.cumulative, *times, value, resource, message_values(point.attributes))


def _resource(body: bytes, resource: wire.Field, limits: Limits) -> dict[str, Value]:
    """Return the attributes of a resource, by protobuf's own parser unless that refuses it."""
    described: dict[str, Value] = {}
    for field in wire.fields(body, resource.start, resource.stop):
        if (field.number, field.kind) == (1, wire.LEN):
            try:
                message: Any = ResourceMessage.FromString(body[field.start : field.stop])
            except DecodeError:
                return resource_attributes(body, resource, limits)
            if len(message.attributes) > limits.attributes:
                return resource_attributes(body, resource, limits)
            described |= message_values(message.attributes)
    return described
