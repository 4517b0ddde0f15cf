"""Every metric of the agent that joins calls."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class CallMetrics:
    """The agent's own metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sightings = Counter(
            "tallystream_worker_call_sightings",
            "Spans of model calls, and spans above them, read from the topic calls. One call may have several.",
            registry=registry,
        )
        self.released = Counter(
            "tallystream_worker_calls_released",
            "Calls written to the usage topic, by the source of their counts: call, or aggregate if the single"
            " calls were not reported. After a crash some are written again; each counts once.",
            ["basis"],
            registry=registry,
        )
        self.late = Counter(
            "tallystream_worker_call_sightings_late",
            "Spans that arrived after their call had been released; they do not change any total. If there are"
            " many, raise TALLYSTREAM_CALLS_HOLD, so that calls include the details of all their spans.",
            registry=registry,
        )
        self.held = Gauge(
            "tallystream_worker_calls_held",
            "Spans with usage that wait for other spans of their call.",
            registry=registry,
        )
        self.dead_letters = Counter(
            "tallystream_worker_call_dead_letters",
            "Messages of the topic calls that could not be read, by reason.",
            ["reason"],
            registry=registry,
        )
