"""Every metric of the console, each with what it means and what to do when it moves."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class ConsoleMetrics:
    """One a console; `registry` is what its ops port shows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "tallystream_console_requests_total", "Requests answered, by HTTP status.", ("code",), registry=registry
        )
        self.seconds = Histogram(
            "tallystream_console_request_seconds",
            "Duration of a page or an API answer. Grows with the database's.",
            registry=registry,
        )
        self.watching = Gauge(
            "tallystream_console_watching", "Browsers that wait for live updates now.", registry=registry
        )
        self.refused = Counter(
            "tallystream_console_refused_total",
            "Requests refused before anything was looked at: no login, a wrong host, a forged form.",
            registry=registry,
        )
        self.changes = Counter(
            "tallystream_console_changes_total",
            "Changes made by people; each is in the audit topic.",
            registry=registry,
        )
