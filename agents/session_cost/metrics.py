"""Every metric of the session-cost agent, each with what it means and what to do when it moves.

Hot paths count in local integers and add them up once a batch; the runtime's own counters are read when scraped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tallystream.schemas.errors import Reason
from tallystream.streams.runtime import Engine
from tallystream.streams.runtime.standby import StandbyProgress

MAX_UNPRICED = 50
"""Label sets of `unpriced`: model names come from clients, so further ones are counted together as `other`."""
BOOK = ("tallystream_worker_book", "The price book with which requests are priced.")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86_400)


class FoldMetrics:
    """The agent's own metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter(
            "tallystream_worker_usage_events",
            "Usage events counted into a session-hour. After a crash some are counted again here, but never in the"
            " rows.",
            registry=registry,
        )
        self.duplicates = Counter(
            "tallystream_worker_duplicate_events",
            "Copies of events that were already counted, because clients send them again. This is harmless.",
            registry=registry,
        )
        self.late = Counter(
            "tallystream_worker_late_events",
            "Events counted after their hour was final (1 h after its end), so that a final row changed. Either a"
            " client's clock is wrong, or a gateway's spool could not be drained for long.",
            registry=registry,
        )
        self.dead_letters = Counter(
            "tallystream_worker_dead_letters",
            "Events and messages not counted, by reason; `tallystream deadletters list` shows them.",
            ["reason"],
            registry=registry,
        )
        self.unpriced = Counter(
            "tallystream_worker_unpriced_requests",
            "Requests counted without a price, because the price book does not contain this model, tier or speed."
            " Add your own price (TALLYSTREAM_PRICES) or upgrade.",
            ["provider", "model", "tier"],
            registry=registry,
        )
        self.corrections = Counter(
            "tallystream_worker_price_corrections",
            "Corrections of `tallystream reprice --apply` that were applied, each to one session-hour. Those that no"
            " longer fitted are dead letters with the reason reprice_refused.",
            registry=registry,
        )
        self.rows = Counter(
            "tallystream_worker_public_rows",
            "Rows written to cost.session-hours and cost.hours, by kind: session_hours, hours.",
            ["kind"],
            registry=registry,
        )
        self.append_to_row = Histogram(
            "tallystream_worker_append_to_row_seconds",
            "Time from the append of a usage message to the acknowledgement of its row, for the newest message of"
            " each group.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.event_to_row = Histogram(
            "tallystream_worker_event_to_row_seconds",
            "Time from an event (client's clock) to the acknowledgement of its row, for the newest message of each"
            " group. This is how long a user waits, including the client's batching.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.commit = Histogram(
            "tallystream_worker_group_commit_seconds",
            "Time to serialise a group of rows, have it acknowledged and store it. It rises if Kafka or the disk is"
            " slow.",
            buckets=_SECONDS,
            registry=registry,
        )
        for reason in Reason:  # created now, because `increase()` misses the first value of a new counter
            self.dead_letters.labels(reason.value)
        self._unpriced_seen: set[tuple[str, str, str]] = set()

    def count_unpriced(self, provider: str, model: str, tier: str) -> bool:
        """Count a request without a price; tell whether it is the first of its kind."""
        kind = (provider, model, tier)
        first = kind not in self._unpriced_seen
        if first and len(self._unpriced_seen) >= MAX_UNPRICED:
            self.unpriced.labels("other", "other", "other").inc()
            return False
        self._unpriced_seen.add(kind)
        self.unpriced.labels(*kind).inc()
        return first


class RuntimeCollector(Collector):
    """The runtime's counters and positions of one table, and the standby's of all, read when scraped."""

    COUNTERS = (
        ("folded_messages", "folded", "Usage messages folded."),
        (
            "skipped_messages",
            "skipped",
            "Messages that were delivered again after they had been counted, because of a rebalance or a seek back.",
        ),
        ("gaps", "gaps", "Batches dropped because messages before them were missing; each is followed by a seek back."),
        (
            "tail_stalls",
            "tail_stalls",
            "Stalled fetches although the topic had more messages; each is followed by a seek back.",
        ),
        (
            "repairs",
            "repairs",
            (
                "Seeks back to the expected position. A few are normal at rebalances; if there are"
                " many, check the network."
            ),
        ),
        ("groups", "groups", "Groups of rows acknowledged and stored."),
        (
            "public_wait_seconds",
            "public_seconds",
            (
                "Total time that groups waited for the acknowledgement of their public rows; divide by the number of"
                " groups."
            ),
        ),
        (
            "changelog_wait_seconds",
            "changelog_seconds",
            "Total time that groups waited for the changelog's acknowledgement; divide by the number of groups.",
        ),
        (
            "lost_records",
            "lost_records",
            (
                "Usage messages that Kafka no longer has, because a broker lost them or they were deleted before they"
                " were counted. Dead letters name them."
            ),
        ),
        ("changelog_rows", "rows", "Rows and tombstones written to the changelog."),
        ("expired_rows", "expired", "Tombstones of hours past their lateness."),
        ("recovered_records", "recovered", "Changelog records read at assignments."),
        ("zombie_records", "zombie_records", "Ignored changelog records of workers that had lost their partition."),
        (
            "late_writes",
            "late_writes",
            "Public rows written again because older rows of a replaced worker followed them.",
        ),
        (
            "unknown_records",
            "unknown_records",
            "Ignored changelog records that do not belong to the table, so another program writes to the topic.",
        ),
    )
    """The metric's name, the attribute of `Counters`, and the help text."""

    def __init__(
        self,
        table: Engine,
        rebalances: Callable[[], int],
        standby: Callable[[], StandbyProgress] = StandbyProgress,
    ) -> None:
        self._table = table
        self._rebalances = rebalances
        self._standby = standby

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        counters = self._table.counters
        for name, attribute, text in self.COUNTERS:
            yield CounterMetricFamily(f"tallystream_worker_{name}", text, value=getattr(counters, attribute))
        yield CounterMetricFamily(
            "tallystream_worker_rebalances", "Assignments of partitions to this worker.", value=self._rebalances()
        )
        progress = self._table.progress()
        yield GaugeMetricFamily(
            "tallystream_worker_partitions", "Partitions owned and recovered.", value=len(progress.partitions)
        )
        yield GaugeMetricFamily(
            "tallystream_worker_recovering_partitions",
            "Partitions that are assigned but not recovered yet.",
            value=progress.pending,
        )
        standby = self._standby()
        yield GaugeMetricFamily(
            "tallystream_worker_standby_partitions",
            "Partitions of other workers of which this one keeps a copy; 0 without --standby.",
            value=len(standby.behind),
        )
        yield GaugeMetricFamily(
            "tallystream_worker_standby_lag_records",
            "Changelog records that these copies do not have yet. Taking over a partition reads them first.",
            value=sum(standby.behind.values()),
        )
        yield CounterMetricFamily(
            "tallystream_worker_standby_records",
            "Changelog records copied for other workers' partitions.",
            value=standby.copied,
        )
        lag = GaugeMetricFamily(
            "tallystream_worker_lag_messages", "Messages not yet acknowledged in the changelog.", labels=["partition"]
        )
        for p, partition in progress.partitions.items():
            if partition.end is not None:
                lag.add_metric([str(p)], max(0, partition.end - partition.applied))
        yield lag
