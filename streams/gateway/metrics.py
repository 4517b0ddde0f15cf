"""Every metric of the gateway, named and explained. Labels never contain a session, an ingest id or free text.

Labels and their values: `provider` codex|claude|gemini|unknown; `signal` logs|metrics|traces|unknown; `code` the HTTP
statuses the gateway answers; `encoding` protobuf|json|unknown; `reason` of a dead letter: `schemas.errors.Reason`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from tallystream.schemas.connections import Provider, Signal
from tallystream.schemas.errors import Reason
from tallystream.streams.service.tallies import TallyCounter, TallyHistogram

DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
AGES = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0)
SIZES = (256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20)
Labels = tuple[str, str, str, str]

GAUGES = {
    "spool_messages": "Messages in the spool.",
    "spool_bytes": "Bytes in the spool.",
    "spool_max_bytes": "Bytes the spool may hold.",
    "spool_oldest_age_seconds": "Age of the oldest message in the spool, 0 when it is empty.",
    "spool_writable": "1 while a spool file can be written; at 0, requests that Kafka does not accept get a 503.",
    "spool_files_unopened": "Spool files of this deployment that cannot be opened now; retried every 30 s.",
    "spool_files_damaged": "Spool files set aside as damaged and not recovered yet (tallystream spool list).",
    "spool_foreign_messages": "Messages of other deployments in the spool directory. They are kept but not sent.",
    "quarantine_requests": "Requests in quarantine, because Kafka is unavailable and their ingest id is not known yet.",
    "quarantine_bytes": "Bytes in quarantine.",
    "http_connections": "Client connections, including those in the TLS handshake.",
    "requests_in_progress": "Requests being answered.",
    "kafka_live": "1 while Kafka acknowledges in time, 0 while messages are spooled.",
    "partitions_away": "Partitions whose messages are spooled because they have no leader or do not acknowledge in"
    " time.",
    "topics_unfit": "1 while the cluster's topics are unsuitable and everything is spooled for that reason.",
    "ack_timeout_seconds": "How long a request currently waits for Kafka's acknowledgement before it is spooled.",
    "connections": "Connections in the registry's cache.",
}


class Metrics:
    """One per gateway; `registry` is what its ops port shows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self._requests = TallyCounter(
            "tallystream_gateway_requests_total",
            "OTLP requests answered.",
            ("provider", "signal", "code", "encoding"),
            registry,
        )
        self._durations = TallyHistogram(
            "tallystream_gateway_request_duration_seconds",
            "Time from a request's headers to its answer. For logs it includes storing the usage durably.",
            ("signal",),
            DURATIONS,
            registry,
        )
        self._bodies = TallyHistogram(
            "tallystream_gateway_body_bytes", "Request bodies after decompression.", ("signal",), SIZES, registry
        )
        self._records = TallyCounter(
            "tallystream_gateway_records_total",
            "Log records, metric points and spans in accepted requests.",
            ("provider", "signal"),
            registry,
        )
        self.witnesses_left_out = counter(
            "tallystream_gateway_witness_statements_left_out_total",
            "Metric points and spans of a client that is counted from its logs, whose token counts could not be read or"
            " that were too many in one body. Coverage lacks them; no cost does.",
        )
        self._events = TallyCounter(
            "tallystream_gateway_usage_events_total",
            "Usage events accepted, including duplicates, which the worker suppresses.",
            ("provider",),
            registry,
        )
        self._event_to_durable = TallyHistogram(
            "tallystream_gateway_event_to_durable_seconds",
            "Time from the newest event of a request (client's clock) to the answer that acknowledges it, including"
            " the client's batching and the network.",
            (),
            AGES,
            registry,
        )
        self.dead_letters = counter(
            "tallystream_gateway_dead_letters_total",
            "Records and bodies that were not counted, by reason; each is kept in the topic deadletters.",
            ("reason",),
        )
        self.unrecognised = counter(
            "tallystream_gateway_unrecognised_usage_records_total",
            "Records with token counts that no normaliser recognises. A client has probably renamed its attributes;"
            " its usage is missing from the tables until tallystream knows the new names.",
            ("provider",),
        )
        self.inconsistent = counter(
            "tallystream_gateway_inconsistent_events_total",
            "Usage events with inconsistent counts (cached tokens above the input, or reasoning tokens above the"
            " output). The totals are kept, and the parts are reduced to fit.",
            ("provider",),
        )
        self._acks = TallyHistogram(
            "tallystream_gateway_kafka_ack_seconds",
            "Time from sending a record batch to its acknowledgement by all in-sync replicas.",
            (),
            DURATIONS,
            registry,
        )
        self._delivered = TallyCounter(
            "tallystream_gateway_messages_acked_total",
            "Messages acknowledged by Kafka, by topic (without the prefix).",
            ("topic",),
            registry,
        )
        self.spooled = counter(
            "tallystream_gateway_spooled_messages_total",
            "Messages written to the spool because Kafka did not acknowledge in time.",
        )
        self.drained = counter(
            "tallystream_gateway_drained_messages_total", "Spooled messages that Kafka has acknowledged."
        )
        self.salvaged = counter(
            "tallystream_gateway_salvaged_messages_total",
            "Messages copied from damaged spool files.",
        )
        self.rejected = counter(
            "tallystream_gateway_rejected_messages_total",
            "Spooled messages that Kafka refuses (size limit, authorization); they stay in the spool.",
        )
        self.refusals = counter(
            "tallystream_gateway_not_durable_rounds_total",
            "Rounds of requests answered 503 because neither Kafka nor the spool accepted them, by cause.",
            ("cause",),
        )
        self.producers_replaced = counter(
            "tallystream_gateway_producers_replaced_total",
            "Kafka producers replaced because they had failed or were stuck.",
        )
        self.refreshes = counter(
            "tallystream_gateway_registry_refreshes_total",
            "Number of times that the registry was brought up to date because of an unknown ingest id, by outcome.",
            ("outcome",),
        )
        self.quarantined = counter(
            "tallystream_gateway_quarantined_requests_total",
            "Requests quarantined because Kafka was unavailable and their ingest id unknown.",
        )
        self.accepts_refused = counter(
            "tallystream_gateway_accepts_refused_total",
            "Connections that the operating system did not let the gateway accept, mostly for lack of file"
            " descriptors.",
        )
        self.connections_refused = counter(
            "tallystream_gateway_connections_refused_total",
            "Connections closed at once because the limit was reached and all others had a request in progress.",
        )
        self.connections_evicted = counter(
            "tallystream_gateway_connections_evicted_total",
            "Idle connections closed to make room for new ones.",
        )
        for reason in Reason:
            self.dead_letters.labels(reason)
        for provider in get_args(Provider):
            self.unrecognised.labels(provider)
            self.inconsistent.labels(provider)
            for signal in get_args(Signal):
                for encoding in ("protobuf", "json"):
                    self._requests.add((provider, signal, "503", encoding), 0)

    def answered(self, labels: Labels, seconds: float) -> None:
        """Count one answer: (provider, signal, code, encoding)."""
        self._requests.add(labels)
        self._durations.observe((labels[1],), seconds)

    def took(self, provider: str, signal: str, size: int, records: int) -> None:
        """Count one decoded body."""
        self._bodies.observe((signal,), size)
        self._records.add((provider, signal), records)

    def durable(self, provider: str, events: int, seconds: float) -> None:
        """Count the events of one request, and how many seconds after the newest of them they were durable."""
        self._events.add((provider,), events)
        self._event_to_durable.observe((), seconds)

    def acked(self, topic: str, messages: int, seconds: float) -> None:
        """Count one acknowledged record batch."""
        self._delivered.add((topic.rpartition(".")[2],), messages)
        self._acks.observe((), seconds)

    def watch(self, **reads: Callable[[], float]) -> None:
        """Register the gauges, which are read on each scrape; one function for each name in GAUGES."""
        for name, text in GAUGES.items():
            Gauge(f"tallystream_gateway_{name}", text, registry=self.registry).set_function(reads[name])
