"""Points of named metrics in JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from tallystream.schemas.errors import InvalidBodyError, TooManyElementsError
from tallystream.schemas.otlp.json_attributes import (
    any_value,
    attributes,
    described,
    nanoseconds,
)
from tallystream.schemas.otlp.json_frames import Part, walk
from tallystream.schemas.otlp.json_values import (
    entries,
    get,
    invalid,
    member,
    text,
    utf8,
)
from tallystream.schemas.otlp.limits import DecodingBudget
from tallystream.schemas.otlp.points import CUMULATIVE, MetricPoint
from tallystream.schemas.otlp.records import BrokenRecord, Value

_KINDS: Final = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
_DECODED: Final = ("sum", "histogram")


def points(body: bytes, names: Collection[str], budget: DecodingBudget) -> Iterator[MetricPoint | int]:
    """Yield the number of points of each metric, and the points themselves of the named ones."""
    broken, sound = "", False
    owner: dict[str, Any] | None = None
    shown: dict[str, Value] = {}
    for resource, _, record in walk(utf8(body), "metrics", budget):
        if isinstance(record, BrokenRecord):
            broken = broken or record.why
            continue
        sound = True
        metric: Any = record.parsed()[0] if isinstance(record, Part) else record
        if type(metric) is not dict:
            continue
        data = {kind: found for kind in _KINDS if type(found := get(metric, kind)) is dict}
        yield sum(len(entries(found, "dataPoints")) for found in data.values())
        name = text(metric, "name")
        if name in names:
            if owner is not resource:
                owner, shown = resource, described(member(resource, "resource"))
            for kind in _DECODED:
                yield from _points(name, data.get(kind) or {}, shown, budget)
    if broken and not sound:
        raise invalid(broken)


def _points(
    name: str, data: dict[str, Any], resource: dict[str, Value], budget: DecodingBudget
) -> Iterator[MetricPoint]:
    temporality = get(data, "aggregationTemporality")
    cumulative = temporality in (CUMULATIVE, str(CUMULATIVE), "AGGREGATION_TEMPORALITY_CUMULATIVE")
    for point in entries(data, "dataPoints"):
        if type(point) is not dict:
            continue
        try:
            values = attributes(point)
            times = nanoseconds(point, "startTimeUnixNano"), nanoseconds(point, "timeUnixNano")
        except TooManyElementsError:
            raise
        except InvalidBodyError:
            continue
        value = _value(point)
        if value is not None and len(values) <= budget.limits.attributes:
            shown = {key: None if found is None else any_value(found) for key, found in values.items()}
            yield MetricPoint(name, cumulative, *times, value, resource, shown)


def _value(point: dict[str, Any]) -> float | None:
    """Return the value of a number's or a histogram's point."""
    for name, kind in (("asInt", "intValue"), ("asDouble", "doubleValue"), ("sum", "doubleValue")):
        found = get(point, name)
        if found is not None:
            value = any_value({kind: found})
            return value if isinstance(value, int | float) else None
    return None
