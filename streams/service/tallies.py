"""Counters and histograms for what happens thousands of times a second.

prometheus_client takes a lock and adds up to five values for each observation, which is a tenth of a small request.
Here an observation is one or two additions without a lock, and the exposition is built on a scrape. So only one thread
may count: the one of the event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class TallyCounter(Collector):
    """A counter by the values of its labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name = name
        self._text = text
        self._labelnames = tuple(labels)
        self._sums: dict[tuple[str, ...], int] = {}
        registry.register(self)

    def add(self, labels: tuple[str, ...], number: int = 1) -> None:
        """Add to the counter of these label values, in the order of the names."""
        sums = self._sums
        sums[labels] = sums.get(labels, 0) + number

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counter for a scrape."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labelnames)
        for labels, number in list(self._sums.items()):
            family.add_metric(labels, number)
        yield family

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Yield the counter's name, so that no other metric can have it."""
        return self.collect()


class TallyHistogram(Collector):
    """A histogram by the values of its labels; `buckets` are upper bounds in ascending order, without infinity."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._text = text
        self._labelnames = tuple(labels)
        self._bounds = [float(bound) for bound in buckets]
        self._shown = [*map(floatToGoString, self._bounds), "+Inf"]
        self._rows: dict[tuple[str, ...], list[float]] = {}
        """By labels: how many values each bucket has, and the sum of all values at the end."""
        if not labels:
            self._begin(())
        registry.register(self)

    def _begin(self, labels: tuple[str, ...]) -> list[float]:
        row = self._rows[labels] = [0] * (len(self._shown) + 1)
        return row

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        """Count a value under these label values, in the order of the names."""
        row = self._rows.get(labels)
        if row is None:
            row = self._begin(labels)
        row[bisect_left(self._bounds, value)] += 1
        row[-1] += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the histogram for a scrape."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labelnames)
        for labels, row in list(self._rows.items()):
            buckets = list(zip(self._shown, accumulate(row[:-1]), strict=True))
            family.add_metric(labels, buckets, row[-1])
        yield family

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Yield the histogram's name, so that no other metric can have it."""
        return self.collect()
