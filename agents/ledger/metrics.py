"""Every metric of the ledger, each with what it means and what to do when it moves."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class LedgerMetrics:
    """One per ledger; its ops port shows `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.active = Gauge(
            "tallystream_ledger_active", "1 while this ledger is the active writer, 0 on standby.", registry=registry
        )
        self.records = Counter(
            "tallystream_ledger_records_total",
            "Records written to the database, or skipped by their version. Some are repeated after a crash.",
            ("topic",),
            registry=registry,
        )
        self.rows = Counter(
            "tallystream_ledger_rows_total",
            "Session-hours written: rows that were not older than the stored ones.",
            registry=registry,
        )
        self.unreadable = Counter(
            "tallystream_ledger_unreadable_records_total",
            "Records that are not valid for their topic. `tallystream doctor` names them.",
            registry=registry,
        )
        self.behind = Gauge(
            "tallystream_ledger_behind_records",
            "Offsets between the ledger's positions and the ends of its topics, as of the last check.",
            registry=registry,
        )
        self.expired = Counter(
            "tallystream_ledger_expired_rows_total",
            "Rows removed because their topic's retention has removed their records.",
            registry=registry,
        )
        self.set_aside = Counter(
            "tallystream_ledger_set_aside_total",
            "Number of times that the database belonged to other topics and was rebuilt; the old one was renamed.",
            registry=registry,
        )
        self.failures = Counter(
            "tallystream_ledger_failures_total",
            "Number of times that Kafka or the database did not answer. The ledger retries, and makes no progress"
            " meanwhile.",
            registry=registry,
        )
        self.seconds = Histogram(
            "tallystream_ledger_transaction_seconds",
            "Duration of one transaction. Grows when the disk or PostgreSQL is slow.",
            buckets=_SECONDS,
            registry=registry,
        )
