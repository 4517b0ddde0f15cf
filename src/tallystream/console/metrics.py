"""Every metric of the console, with its meaning and what to do when it changes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class ConsoleMetrics:
    """The metrics of one console, in the registry that its ops port serves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "tallystream_console_requests_total", "Requests answered, by HTTP status.", ("code",), registry=registry
        )
        self.seconds = Histogram(
            "tallystream_console_request_seconds",
            "Time to answer a page or API request. Mostly database time.",
            registry=registry,
        )
        self.watching = Gauge("tallystream_console_watching", "Browsers connected for live updates.", registry=registry)
        self.refused = Counter(
            "tallystream_console_refused_total",
            "Requests refused by authentication: no login, a wrong host, a forged form.",
            registry=registry,
        )
        self.changes = Counter(
            "tallystream_console_changes_total",
            "Changes made by users; each is in the audit topic.",
            registry=registry,
        )
