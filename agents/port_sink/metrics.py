"""Every metric of the sink, each with what it means and what to do when it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

BEHIND = "tallystream_sink_behind_seconds"
DOCUMENTS = "tallystream_sink_backlog_documents"
ENTITIES = "tallystream_sink_backlog_entities"
PARKED = "tallystream_sink_deferred_entities"
REPETITIONS = "tallystream_sink_repetitions_due"
SWEEPING = "tallystream_sink_sweep_running"
ACTIVE = "tallystream_sink_active"
READ = "tallystream_sink_source_offset"
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86_400)
_SHOWN = {
    BEHIND: "Age of the oldest change not in Port yet, from its append (or from the sweep that found it).",
    DOCUMENTS: "Changed documents not mapped yet.",
    ENTITIES: "Entities waiting to be sent to Port, or in flight.",
    PARKED: "Of these, entities that wait for another attempt, mostly because an entity they relate to is missing.",
    REPETITIONS: "Requests with unknown outcome whose entities are sent again soon. The last repetition for a"
    " replaced sink, up to three hours later, is not counted.",
}
Positions = Mapping[tuple[str, int], int]


class SinkMetrics:
    """One per sink; its ops port shows `registry`. `blueprint` and `kind` are those of the mapping."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        self.active = gauge(ACTIVE, "1 while this sink is the active writer, 0 on standby.")
        self.upserted = counter(
            "tallystream_sink_entities_upserted_total", "Entities Port has acknowledged.", "blueprint"
        )
        self.unchanged = counter(
            "tallystream_sink_entities_unchanged_total",
            "Entities not sent because Port already has them unchanged.",
            "blueprint",
        )
        self.failed = counter(
            "tallystream_sink_entities_failed_total",
            "Entities that Port refuses permanently, kept as dead letters: `tallystream deadletters list`.",
            "blueprint",
        )
        self.stopped = gauge(
            "tallystream_sink_stopped_kinds",
            "1 for a kind of which something is not written because its mapping names a blueprint that does not exist"
            " in Port; 0 once it exists.",
            "kind",
        )
        self.unmatched = gauge(
            "tallystream_sink_unmatched_kinds",
            "1 for a kind whose mapping has not made an entity from any of its records; its query or itemsToParse"
            " may be wrong.",
            "kind",
        )
        self.registered = gauge(
            "tallystream_sink_registered",
            "1 while the sink is registered as an integration in Port, with its last sync; 0 if not, or if"
            " TALLYSTREAM_PORT_REGISTER is off. Delivery does not depend on it.",
        )
        self.deleted = counter(
            "tallystream_sink_entities_deleted_total", "Entities deleted by the retention rule.", "blueprint"
        )
        self.missing = counter(
            "tallystream_sink_entities_missing_relation_total",
            "Number of times that an entity had to wait because an entity it relates to is not in Port yet.",
            "blueprint",
        )
        self.mapping_errors = counter(
            "tallystream_sink_mapping_errors_total",
            "Records on which a mapping failed, kept as dead letters with the expression.",
            "kind",
        )
        self.requests = counter(
            "tallystream_sink_bulk_requests_total",
            "Bulk requests by outcome: ok, partial, or an error.",
            "result",
        )
        self.throttled = counter(
            "tallystream_sink_throttled_requests_total",
            "429 answers. The sink keeps to Port's rate limit, so another client uses up the organisation's limit.",
        )
        self.resent = counter(
            "tallystream_sink_entities_resent_total",
            "Entities sent again although unchanged, because a request with unknown outcome may have overwritten them.",
        )
        self.swept = counter(
            "tallystream_sink_documents_swept_total", "Documents compared with what was sent, by sweeps."
        )
        self.sweeps = counter(
            "tallystream_sink_sweeps_total", "Completed comparisons of everything with what was sent."
        )
        self.pace: tuple[float, int | None] = (0.0, None)
        self.sweep_running = False
        self.sweeping = gauge(
            SWEEPING,
            "1 while everything is compared with what was sent. This happens when a sink becomes active, and then"
            " periodically.",
        )
        self.row_to_port = Histogram(
            "tallystream_sink_row_to_port_seconds",
            "Time from the append of a row (or of an OpenAI record, or of a connection) to Port's acknowledgement"
            " of its entity: one observation for each entity, for the oldest change that it contains. Changes found"
            " by a sweep are not included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.rate = gauge(
            "tallystream_sink_request_rate_per_second", "Current rate limit in bulk requests per second; 0 on standby."
        )
        self.remaining = gauge(
            "tallystream_sink_remaining_calls", "Calls left in the rate-limit period according to Port; -1 if unknown."
        )

    def sweeps_run(self, *, running: bool) -> None:
        """Note that everything is being compared with what was sent, or no longer."""
        self.sweep_running = running
        self.sweeping.set(running)

    def paced(self, rate: float, remaining: int | None) -> None:
        """Note the pace, and what Port has last said is left (None: nothing yet)."""
        self.pace = (rate, remaining)
        self.rate.set(rate)
        self.remaining.set(-1 if remaining is None else remaining)

    def watch(self, shown: Mapping[str, Callable[[], float]], read: Callable[[], Positions]) -> None:
        """Compute these gauges when they are scraped: those in `_SHOWN`, and each source's position."""
        for name, text in _SHOWN.items():
            Gauge(name, text, registry=self.registry).set_function(shown[name])
        self.registry.register(_Read(read))


class _Read(Collector):
    """Partitions change, so their positions are collected at each scrape."""

    def __init__(self, read: Callable[[], Positions]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            READ, "Offset up to which a topic is in the sink's local copy.", labels=["topic", "partition"]
        )
        for (topic, partition), offset in self._read().items():
            family.add_metric([topic, str(partition)], offset)
        yield family
