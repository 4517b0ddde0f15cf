"""Every metric of the exporter, named and explained.

Labels and their bounds: `group` and `consumergroup` MAX_GROUPS; `topic` ours; `partition` as configured; `connection`,
`client`, `model`, `team`, `agent` as bounded by `exporter.labels`, beyond which they become `other`; `kind`, `signal`,
`status`, `billing` and `hour` are fixed. A label is never a session, an ingest id or a user.

Names that begin with `kafka_` are those of kafka_exporter and kafka-lag-exporter, so that their dashboards work
unchanged. Only metrics that can be measured from outside the group are provided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

from tallystream.exporter.cost_history import history
from tallystream.exporter.counters import PublishedCounters
from tallystream.exporter.labels import COUNTS, FIELDS, KINDS, Dimension, Label, Sums
from tallystream.exporter.lag import GroupPartition, Lags
from tallystream.schemas.money import PICO

_AT = {name: place for place, name in enumerate(FIELDS)}


@dataclass(frozen=True)
class View:
    """The current values. None and empty collections are unknown and are not shown."""

    now_ns: int
    cluster: str = ""
    lags: Lags | None = None
    published: PublishedCounters | None = None
    connections: list[tuple[str, str, str, bool]] = field(default_factory=list)
    last_synced: Mapping[tuple[str, str], float] = field(default_factory=dict)
    newest_row_ms: int | None = None
    failures: int = 0
    lateness: float = 0.0
    lag_read_at_ns: int = 0
    rows_read_at_ns: int = 0


class ExporterCollector(Collector):
    """Turns the view into metrics at each scrape."""

    def __init__(self, view: Callable[[], View]) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families."""
        view = self._view()
        yield from _lag(view)
        yield from _lag_for_others(view)
        yield from _freshness(view)
        yield from _usage(view.published)
        for dimension, none in _DIMENSIONS.items():
            yield from _dimension(view.published, dimension, none)
        yield from _hours(view)
        yield from _connections(view)
        yield from _own(view)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tallystream_exporter_{name}", text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"tallystream_exporter_{name}", text, labels=labels)


def _seconds(one: GroupPartition, now_ns: int) -> float:
    """Return the age of the oldest unread record; 0 if all are read."""
    return 0.0 if one.oldest_ms is None else max(0.0, now_ns / 1e9 - one.oldest_ms / 1e3)


def _lag(view: View) -> Iterator[Metric]:
    labels = ("group", "topic", "partition")
    records = _gauge(
        "consumer_lag_records",
        "Records of a topic that a consumer group has not processed, according to its committed offsets.",
        *labels,
    )
    seconds = _gauge(
        "consumer_lag_seconds",
        "Age of the oldest record that the group has not processed; 0 if all are processed. Measured, not estimated.",
        *labels,
    )
    position = _gauge(
        "consumer_offset", "Committed offset, at which the group continues; not shown before its first commit.", *labels
    )
    lost = _gauge(
        "consumer_lost_records",
        "Records that retention removed before the group had processed them. They are lost.",
        *labels,
    )
    end = _gauge("topic_end_offset", "Offset that the next record of the partition will get.", "topic", "partition")
    ends: dict[tuple[str, int], int] = {}
    for one in view.lags.partitions if view.lags is not None else ():
        values = (one.group, one.topic, str(one.lag.partition))
        records.add_metric(values, one.lag.behind)
        seconds.add_metric(values, _seconds(one, view.now_ns))
        lost.add_metric(values, one.lag.lost)
        if one.lag.committed is not None:
            position.add_metric(values, one.lag.committed)
        ends[one.topic, one.lag.partition] = one.lag.end
    for (topic, partition), offset in sorted(ends.items()):
        end.add_metric((topic, str(partition)), offset)
    yield from (records, seconds, position, lost, end)


def _lag_for_others(view: View) -> Iterator[Metric]:
    theirs = ("consumergroup", "topic", "partition")
    lag = GaugeMetricFamily("kafka_consumergroup_lag", "Same as kafka_exporter's: lag in records.", labels=theirs)
    # Untyped, because a gauge may not end in `_sum`, which is the name that dashboards use.
    total = UnknownMetricFamily(
        "kafka_consumergroup_lag_sum",
        "Same as kafka_exporter's: lag in records, summed over a topic.",
        labels=theirs[:2],
    )
    offset = GaugeMetricFamily(
        "kafka_consumergroup_current_offset", "Same as kafka_exporter's: committed offset.", labels=theirs
    )
    other = ("cluster_name", "group", "topic", "partition")
    prefix = "kafka_consumergroup_group"
    group_lag = GaugeMetricFamily(f"{prefix}_lag", "Same as kafka-lag-exporter's: lag in records.", labels=other)
    group_seconds = GaugeMetricFamily(
        f"{prefix}_lag_seconds",
        "Same as kafka-lag-exporter's: lag in seconds, but measured instead of estimated.",
        labels=other,
    )
    most = GaugeMetricFamily(
        f"{prefix}_max_lag", "Same as kafka-lag-exporter's: maximum of a group's lags in records.", labels=other[:2]
    )
    most_seconds = GaugeMetricFamily(
        f"{prefix}_max_lag_seconds",
        "Same as kafka-lag-exporter's: maximum of a group's lags in seconds.",
        labels=other[:2],
    )
    sums: dict[tuple[str, str], int] = {}
    longest: dict[str, tuple[int, float]] = {}
    for one in view.lags.partitions if view.lags is not None else ():
        values, seconds = (one.group, one.topic, str(one.lag.partition)), _seconds(one, view.now_ns)
        lag.add_metric(values, one.lag.behind)
        if one.lag.committed is not None:
            offset.add_metric(values, one.lag.committed)
        group_lag.add_metric((view.cluster, *values), one.lag.behind)
        group_seconds.add_metric((view.cluster, *values), seconds)
        sums[values[:2]] = sums.get(values[:2], 0) + one.lag.behind
        records, age = longest.get(one.group, (0, 0.0))
        longest[one.group] = max(records, one.lag.behind), max(age, seconds)
    for topic, behind in sums.items():
        total.add_metric(topic, behind)
    for group, (records, age) in longest.items():
        most.add_metric((view.cluster, group), records)
        most_seconds.add_metric((view.cluster, group), age)
    yield from (lag, total, offset, group_lag, group_seconds, most, most_seconds)


def _freshness(view: View) -> Iterator[Metric]:
    lags = view.lags
    unseen = _gauge(
        "freshness_seconds", "Age of the oldest usage message that is not yet included in a row; 0 if all are included."
    )
    newest = _gauge(
        "newest_usage_timestamp_seconds", "Append time of the newest usage message; not shown before the first."
    )
    row = _gauge(
        "newest_row_timestamp_seconds", "Time at which the newest row was written; not shown before the first."
    )
    if lags is not None:
        oldest = lags.unseen_usage_ms
        unseen.add_metric((), 0.0 if oldest is None else max(0.0, view.now_ns / 1e9 - oldest / 1e3))
        if lags.newest_usage_ms is not None:
            newest.add_metric((), lags.newest_usage_ms / 1e3)
    if view.newest_row_ms is not None:
        row.add_metric((), view.newest_row_ms / 1e3)
    yield from (unseen, newest, row)


def _of(published: PublishedCounters | None, kind: str) -> list[tuple[Label, Sums]]:
    return [] if published is None else [(label, sums) for label, sums in published.sums.items() if label.kind == kind]


def _usage(published: PublishedCounters | None) -> Iterator[Metric]:
    labels = ("connection", "client", "model")
    exact = "Computed from the exact rows. Never decreases, even after restarts."
    tokens = _counter("tokens", f"Tokens by kind; the kinds are disjoint. {exact}", *labels, "kind")
    reasoning = _counter("reasoning_tokens", f"Reasoning tokens, a part of the output tokens. {exact}", *labels)
    cost = _counter(
        "cost_usd", f"Cost in US dollars by the price book, without requests that have no price. {exact}", *labels
    )
    requests = _counter("requests", f"Billed model responses. {exact}", *labels)
    unpriced = _counter(
        "requests_without_price", f"Billed model responses that have no price in the price book. {exact}", *labels
    )
    for label, sums in _of(published, "usage"):
        values = (label.first, label.client, label.model)
        for kind in KINDS:
            tokens.add_metric((*values, kind), sums[_AT[kind]])
        reasoning.add_metric(values, sums[_AT["reasoning"]])
        cost.add_metric(values, sums[_AT["cost_pico"]] / PICO)
        requests.add_metric(values, sums[_AT["requests"]])
        unpriced.add_metric(values, sums[_AT["unpriced_requests"]])
    yield from (tokens, reasoning, cost, requests, unpriced)


_DIMENSIONS: Mapping[Dimension, str] = {
    "team": "no team is named",
    "agent": "no agent is named",
    "billing": "the client does not tell; `plan`: what the API would have charged, part of no bill",
}
"""What the value `none` means."""


def _dimension(published: PublishedCounters | None, name: Dimension, none: str) -> Iterator[Metric]:
    cost = _counter(f"{name}_cost_usd", f"Cost in US dollars by {name} (`none`: {none}). Computed from the rows.", name)
    tokens = _counter(f"{name}_tokens", f"Tokens of all kinds by {name}. Computed from the rows.", name)
    requests = _counter(f"{name}_requests", f"Billed model responses by {name}. Computed from the rows.", name)
    assert COUNTS[0] == "requests"
    for label, sums in _of(published, name):
        cost.add_metric((label.first,), sums[_AT["cost_pico"]] / PICO)
        tokens.add_metric((label.first,), sum(sums[_AT[kind]] for kind in KINDS))
        requests.add_metric((label.first,), sums[_AT["requests"]])
    yield from (cost, tokens, requests)


def _hours(view: View) -> Iterator[Metric]:
    cost = _gauge(
        "hour_cost_usd",
        "Cost of a UTC hour by event time: of the `current` hour so far, or of the whole `previous` hour.",
        "hour",
    )
    by_connection = _gauge("connection_hour_cost_usd", "Cost of the current UTC hour so far.", "connection")
    days = _gauge("hour_history_size", "Number of the last 14 days for which this hour's cost is known.", "hour")
    mean = _gauge("hour_history_mean_usd", "Mean cost of the same hour on these days.", "hour")
    deviation = _gauge(
        "hour_history_stddev_usd", "Standard deviation of the cost of the same hour on these days.", "hour"
    )
    most = _gauge("hour_history_max_usd", "Highest cost of the same hour on these days.", "hour")
    if view.published is not None:
        current = view.now_ns // 1_000_000_000 // 3600
        for name, hour in (("current", current), ("previous", current - 1)):
            found = history(view.published.hours, hour)
            cost.add_metric((name,), found.cost)
            days.add_metric((name,), found.days)
            mean.add_metric((name,), found.mean)
            deviation.add_metric((name,), found.deviation)
            most.add_metric((name,), found.most)
        for (hour, connection), pico in sorted(view.published.hours.items()):
            if hour == current:
                by_connection.add_metric((connection,), pico / PICO)
    yield from (cost, by_connection, days, mean, deviation, most)


def _connections(view: View) -> Iterator[Metric]:
    info = _gauge(
        "connection_info",
        "1 for each connection, with its name and provider.",
        "connection",
        "provider",
        "name",
        "status",
    )
    synced = _gauge(
        "connection_last_synced_timestamp_seconds",
        "Time at which a connection's telemetry was last accepted, by signal; not shown before the first time.",
        "connection",
        "signal",
    )
    for connection, provider, name, revoked in view.connections:
        info.add_metric((connection, provider, name, "revoked" if revoked else "active"), 1)
    for values, at in sorted(view.last_synced.items()):
        synced.add_metric(values, at)
    yield from (info, synced)


def _own(view: View) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "tallystream_exporter_lateness_seconds",
        "How long after its hour ended an event is still counted, as configured for the exporter.",
        value=view.lateness,
    )
    yield CounterMetricFamily(
        "tallystream_exporter_failures", "Number of times that Kafka did not answer the exporter.", value=view.failures
    )
    yield CounterMetricFamily(
        "tallystream_exporter_skipped_rows",
        "Records on the rows topic that are not rows, so another program writes there.",
        value=view.published.skipped if view.published is not None else 0,
    )
    yield GaugeMetricFamily(
        "tallystream_exporter_lag_read_timestamp_seconds",
        "Time at which the offsets were last read; lags older than 30 s are not shown.",
        value=view.lag_read_at_ns / 1e9,
    )
    yield GaugeMetricFamily(
        "tallystream_exporter_rows_read_timestamp_seconds",
        "Time at which the rows topic was last polled.",
        value=view.rows_read_at_ns / 1e9,
    )
