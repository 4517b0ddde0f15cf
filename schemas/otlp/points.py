"""The points of a few named metrics; all other metrics of a body are only counted, not decoded.

Only sums and histograms: of a histogram the sum of its values counts. A metric that cannot be decoded is left out,
because nothing that costs money is read from metrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tallystream.schemas.otlp.encoding import Encoding
from tallystream.schemas.otlp.limits import LIMITS, DecodingBudget, Limits
from tallystream.schemas.otlp.records import Attributes, Value

CUMULATIVE = 2
"""AGGREGATION_TEMPORALITY_CUMULATIVE."""


class MetricNames:
    """Names of metrics, and a pattern that finds them in a body's bytes."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self.in_bytes = re.compile(b"|".join(re.escape(name.encode()) for name in sorted(self._names)))

    def __contains__(self, name: object) -> bool:
        return name in self._names


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """A point of a sum or a histogram."""

    metric: str
    cumulative: bool
    """Whether the value counts from `start_ns`, and the next point repeats it; otherwise it is an increment."""
    start_ns: int
    """0 when it is not known."""
    time_ns: int
    value: float
    resource: dict[str, Value]
    attributes: Attributes


class MetricsBody:
    """A metrics request that is decoded while it is walked."""

    def __init__(self, points: Iterator[MetricPoint | int]) -> None:
        self._points = points
        self.records = 0
        """Points of all metrics, known once all have been walked."""

    def __iter__(self) -> Iterator[MetricPoint]:
        """Iterate over the points of the named metrics.

        Raises:
            InvalidBodyError: it is not a metrics request, or exceeds a limit.

        """
        for found in self._points:
            if isinstance(found, MetricPoint):
                yield found
            else:
                self.records += found


def read_points(body: bytes, encoding: Encoding, names: MetricNames, limits: Limits = LIMITS) -> MetricsBody:
    """Decode the points of the named metrics in an ExportMetricsServiceRequest; walking it may raise."""
    from tallystream.schemas.otlp import json_points, protobuf_points

    budget = DecodingBudget(limits)
    found = json_points if encoding is Encoding.JSON else protobuf_points
    return MetricsBody(found.points(body, names, budget))
