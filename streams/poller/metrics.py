"""Every metric of the poller, named and explained. `resource` is a declared name, `reason` a `poller.errors.Why`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DURATIONS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class PollerMetrics:
    """One per poller; `registry` is what its ops port shows."""

    def __init__(self, registry: CollectorRegistry, resources: Iterable[str]) -> None:
        self.registry = registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        self.active = gauge("tallystream_poller_active", "1 while this poller is the active one, 0 on standby.")
        self.interval = gauge("tallystream_poller_interval_seconds", "Configured time between two polls.")
        self.last_success = gauge(
            "tallystream_poller_last_success_timestamp_seconds",
            "When a resource was last polled without a failure; 0 if not since this poller started. Alert on its age.",
            "resource",
        )
        self.failures = counter(
            "tallystream_poller_failures_total",
            "Polls that failed after all retries, by reason. A failed poll does not publish anything.",
            "resource", "reason",
        )  # fmt: skip
        self.retries = counter(
            "tallystream_poller_request_retries_total", "Requests that were retried, by reason.", "reason"
        )
        self.published = counter(
            "tallystream_poller_buckets_published_total", "Buckets written to openai.records.", "resource"
        )
        self.restated = counter(
            "tallystream_poller_buckets_restated_total",
            "Of these, buckets that replaced an earlier version, because OpenAI restated them.",
            "resource",
        )
        self.unchanged = counter(
            "tallystream_poller_buckets_unchanged_total", "Buckets fetched again that had not changed.", "resource"
        )
        self.missing = counter(
            "tallystream_poller_buckets_missing_total",
            "Requested buckets missing in the response; their previous contents are kept.",
            "resource",
        )
        self.repaired = counter(
            "tallystream_poller_records_repaired_total",
            "Records written again because a replaced poller had written an older version after them.",
        )
        self.discarded = counter(
            "tallystream_poller_polls_discarded_total",
            "Polls discarded because another poller was, or could have been, the active one by then.",
        )
        self.settled = gauge(
            "tallystream_poller_settled_timestamp_seconds",
            "Buckets that end before this time can no longer change and are not fetched again.",
            "resource",
        )
        self.first = gauge(
            "tallystream_poller_history_start_timestamp_seconds", "Start of the oldest bucket polled.", "resource"
        )
        self.open_buckets = gauge(
            "tallystream_poller_open_buckets",
            "Buckets that may still change and are fetched at every poll.",
            "resource",
        )
        self.days_offset = gauge(
            "tallystream_poller_billed_offset",
            "Offset in openai.records up to which openai.days is complete; 0 while both are read from the beginning.",
        )
        self.days_held = gauge(
            "tallystream_poller_held_bills",
            "Days whose values are not updated. `invalid`: an answer has an amount that cannot be added up, see the"
            " dead letters. `incomplete`: not all usage resources of the day have answered.",
            "reason",
        )
        self.duration = Histogram(
            "tallystream_poller_poll_duration_seconds",
            "Duration of one poll of one resource, including retries and publishing.",
            ("resource",),
            buckets=DURATIONS,
            registry=registry,
        )
        for name in resources:
            for metric in (self.last_success, self.published, self.restated, self.unchanged):
                metric.labels(name)

    def note_held(self, days: Mapping[str, int]) -> None:
        """Set the number of days that keep their previous amounts, by reason."""
        for reason, count in days.items():
            self.days_held.labels(reason).set(count)
