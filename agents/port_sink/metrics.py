"""Every metric of the sink, each with what it means and what to do when it moves."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class SinkMetrics:
    """One a sink; `registry` is what its ops port shows. `blueprint` and `kind` are those of the mapping."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        self.active = gauge("tallystream_port_sink_active", "1 while this sink is the one that writes, 0 on standby.")
        self.upserted = counter(
            "tallystream_port_entities_upserted_total", "Entities Port has acknowledged.", "blueprint"
        )
        self.unchanged = counter(
            "tallystream_port_entities_unchanged_total",
            "Entities not sent because Port has them as they are already.",
            "blueprint",
        )
        self.failed = counter(
            "tallystream_port_entities_failed_total",
            "Entities Port refuses for good, as dead letters: `tallystream deadletters list`.",
            "blueprint",
        )
        self.deleted = counter(
            "tallystream_port_entities_deleted_total", "Entities deleted by the retention rule.", "blueprint"
        )
        self.missing = counter(
            "tallystream_port_entities_missing_relation_total",
            "Times an entity had to wait because what it relates to is not in Port yet.",
            "blueprint",
        )
        self.mapping_errors = counter(
            "tallystream_port_mapping_errors_total",
            "Records a mapping could not be carried out on, as dead letters with the expression.",
            "kind",
        )
        self.requests = counter(
            "tallystream_port_bulk_requests_total",
            "Bulk requests by what came of them: ok, partial, or an error.",
            "result",
        )
        self.throttled = counter(
            "tallystream_port_throttled_total",
            "429 answers. The pace is planned so that there are none: others use up the organisation's limit.",
        )
        self.resent = counter(
            "tallystream_port_entities_resent_total",
            "Entities sent again although unchanged, because a request of unknown fate may have overwritten them.",
        )
        self.swept = counter(
            "tallystream_port_documents_swept_total", "Documents compared with what was sent, by sweeps."
        )
        self.sweeps = counter(
            "tallystream_port_sweeps_total", "Comparisons of everything with what was sent, finished."
        )
        self.rate = gauge("tallystream_port_request_rate_limit", "Bulk requests a second the pace allows now.")
        self.remaining = gauge(
            "tallystream_port_rate_limit_remaining", "Calls Port says are left of the period; -1: it has not said yet."
        )

    def watch(self, behind: Callable[[], float], backlog: Callable[[], int], waiting: Callable[[], int],
              parked: Callable[[], int]) -> None:  # fmt: skip
        """Show what is asked for when it is scraped."""
        shown: dict[str, tuple[str, Callable[[], float]]] = {
            "tallystream_port_seconds_behind": (
                "Age of the oldest change not in Port yet, from its append (or from the sweep that found it).", behind,
            ),
            "tallystream_port_backlog_documents": ("Changed documents not mapped yet.", backlog),
            "tallystream_port_backlog_entities": ("Entities on their way to Port.", waiting),
            "tallystream_port_backlog_parked": (
                "Entities of these that wait for another attempt, mostly for what they relate to.", parked,
            ),
        }  # fmt: skip
        for name, (text, ask) in shown.items():
            Gauge(name, text, registry=self.registry).set_function(ask)
