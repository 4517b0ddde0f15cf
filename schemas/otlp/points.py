"""The points of a few named metrics; all other metrics of a body are only counted, not decoded.

Only sums and histograms: of a histogram the sum of its values counts. A metric that cannot be decoded is left out,
because nothing that costs money is read from metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tallystream.schemas.otlp.records import Value

CUMULATIVE = 2
"""AGGREGATION_TEMPORALITY_CUMULATIVE."""


@dataclass(slots=True)
class MetricPoint:
    """A point of a sum or a histogram. Never changed; frozen would make creating it three times as slow."""

    metric: str
    cumulative: bool
    """Whether the value counts from `start_ns`, and the next point repeats it; otherwise it is an increment."""
    start_ns: int
    """0 when it is not known."""
    time_ns: int
    value: float
    resource: dict[str, Value]
    """The same object for all points of one resource."""
    attributes: dict[str, Value]


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
