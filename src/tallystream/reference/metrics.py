"""Collects the metrics of all components and writes docs/metrics.md.

    python -m tallystream.reference.metrics > docs/metrics.md     (`make docs`; a test compares the two)

Metrics are explained where they are counted. Labels are explained here, in LABELS, with the bound on the number of
their values; a test fails for a label that is missing there.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from prometheus_client import CollectorRegistry, Info
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tallystream.agents.genai_calls.metrics import CallMetrics
from tallystream.agents.ledger.coverage_watch import CoverageWatch
from tallystream.agents.ledger.metrics import LedgerMetrics
from tallystream.agents.port_sink import metrics as sink
from tallystream.agents.reconciliation.metrics import MAX_SCOPES, ReconciliationMetrics
from tallystream.agents.session_cost.metrics import BOOK, MAX_UNPRICED, FoldMetrics, RuntimeCollector
from tallystream.components.renamed_metrics import OLD_NAMES
from tallystream.console.metrics import ConsoleMetrics
from tallystream.exporter.labels import MAX_AGENTS, MAX_CONNECTIONS, MAX_MODELS, MAX_SERIES, MAX_TEAMS
from tallystream.exporter.lag import MAX_GROUPS
from tallystream.exporter.metrics import ExporterCollector, View
from tallystream.streams.gateway import metrics as gateway
from tallystream.streams.poller import metrics as poller
from tallystream.streams.runtime import Engine
from tallystream.streams.runtime.progress import Counters, Progress

LABELS = {
    "basis": "the source of a call's counts: call or aggregate",
    "blueprint": "a Port blueprint of the mapping",
    "cause": "why neither Kafka nor the spool accepted a request: the name of our exception; of a difference to"
    " the bill: see docs/reconciliation.md",
    "client": "codex, claude, gemini, qwen, copilot and other clients that report spans",
    "cluster_name": "the topic prefix",
    "code": "the HTTP statuses that the gateway or the console answers with",
    "connection": f"a connection's public id; at most {MAX_CONNECTIONS}, then `other`",
    "consumergroup": f"a consumer group; at most {MAX_GROUPS}",
    "encoding": "protobuf, json or unknown",
    "group": f"a consumer group; at most {MAX_GROUPS}",
    "hash": "the hash of a price book",
    "hour": "current or previous",
    "kind": "of tokens: input_uncached, cache_read, cache_write_5m, cache_write_1h, output, tool; of rows:"
    " session_hours, hours; of a mapping: its name",
    "model": f"a model as the client calls it; at most {MAX_MODELS} models and {MAX_SERIES} of (connection, client,"
    f" model), {MAX_UNPRICED} of unpriced (provider, model, tier); then `other`",
    "name": "the connection's name given by the operator, at most 80 characters",
    "outcome": "caught_up or failed",
    "partition": "a partition's number; as many as configured",
    "provider": "the client of a connection, or unknown; of unpriced requests: openai, anthropic, google",
    "reason": "of a dead letter: one of `schemas.errors.Reason`; of the poller: one of"
    " `streams.poller.errors.FailureReason`",
    "resource": "a declared resource of a provider",
    "result": "ok, partial, or the kind of an error",
    "scope": f"an account scope: its first connection, `all`, `outside` or `unmapped`; at most {MAX_SCOPES}",
    "signal": "logs, metrics, traces or unknown",
    "state": "open, provisional, settled or partial",
    "status": "active or revoked",
    "agent": f"an agent as the attribution names it, `none` without; at most {MAX_AGENTS}, then `other`",
    "billing": "how usage is paid: plan, api, or none if the client does not tell",
    "team": f"a team as the client's attributes name it, or `none`; at most {MAX_TEAMS}, then `other`",
    "tier": "a service tier or speed; bounded together with `model`",
    "topic": "one of our topics",
}


_ENDS = {"counter": "_total", "info": "_info"}


@dataclass(frozen=True)
class Family:
    """One metric. `name` is its name in PromQL: `_total` for counters and `_info` for infos included."""

    component: str
    name: str
    kind: str
    labels: tuple[str, ...]
    text: str

    @property
    def base(self) -> str:
        """Return the name without the suffix of its kind."""
        return self.name.removesuffix(_ENDS.get(self.kind, ""))

    @property
    def series(self) -> tuple[str, ...]:
        """Return the names of its series."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{suffix}" for suffix in ("bucket", "count", "sum"))
        return (self.name,)


class _Recording(CollectorRegistry):
    """A registry that remembers the registered metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Any] = []

    def register(self, collector: Collector) -> None:
        self.collectors.append(collector)
        super().register(collector)


class _NoTable:
    """Stands in for a table that has not started."""

    counters = Counters()

    def progress(self) -> Progress:
        return Progress({}, 0, 0.0)


def _gateway(registry: CollectorRegistry) -> None:
    gateway.Metrics(registry).watch(**dict.fromkeys(gateway.GAUGES, _zero))


def _worker(registry: CollectorRegistry) -> None:
    FoldMetrics(registry)
    CallMetrics(registry)
    registry.register(RuntimeCollector(cast(Engine, _NoTable()), lambda: 0))
    Info(*BOOK, registry=registry).info({"hash": ""})


def _exporter(registry: CollectorRegistry) -> None:
    registry.register(ExporterCollector(lambda: View(0)))


def _poller(registry: CollectorRegistry) -> None:
    poller.PollerMetrics(registry, ())
    ReconciliationMetrics(registry)


def _sink(registry: CollectorRegistry) -> None:
    sink.SinkMetrics(registry).watch(defaultdict(lambda: _zero), lambda: {("", 0): 0})


def _ledger(registry: CollectorRegistry) -> None:
    LedgerMetrics(registry)
    CoverageWatch(registry)


def _zero() -> float:
    return 0.0


COMPONENTS: dict[str, Callable[[CollectorRegistry], object]] = {
    "gateway": _gateway,
    "worker": _worker,
    "exporter": _exporter,
    "poller": _poller,
    "sink": _sink,
    "ledger": _ledger,
    "console": ConsoleMetrics,
}


def registry_of(component: str) -> CollectorRegistry:
    """Return a registry with a component's metrics in their initial state."""
    registry = _Recording()
    COMPONENTS[component](registry)
    return registry


def families() -> list[Family]:
    """Return every metric of every component."""
    return [family for component in COMPONENTS for family in _families(component)]


def _families(component: str) -> Iterator[Family]:
    registry = _Recording()
    COMPONENTS[component](registry)
    for collector in registry.collectors:
        own = tuple(getattr(collector, "_labelnames", ()))  # the library exposes label names nowhere else
        for metric in collector.collect():
            labels = own or tuple(getattr(metric, "_labelnames", ()))
            yield Family(component, _shown(metric), metric.type, _of_info(metric) or labels, metric.documentation)


def _shown(metric: Metric) -> str:
    return metric.name + _ENDS.get(metric.type, "")


def _of_info(metric: Metric) -> tuple[str, ...]:
    return tuple(metric.samples[0].labels) if metric.type == "info" else ()


def renamed() -> list[tuple[str, str]]:
    """Return the old and new names of metrics that were renamed, as PromQL calls them, sorted."""
    ends = {family.base: family.name.removeprefix(family.base) for family in families()}
    return sorted((old + ends[new], new + ends[new]) for new, old in OLD_NAMES.items())


def render() -> str:
    """Return docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Written by `make docs` from the texts in the code. Each component serves its own metrics on `/metrics` of its",
        "ops port, together with the process metrics of the Python client (`process_*`, `python_*`).",
        "",
        "A label never contains a session, an ingest id, a user or a prompt.",
        "",
    ]
    for component in COMPONENTS:
        lines += [f"## {component}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        for family in _families(component):
            text = family.text.replace("|", "\\|")
            lines.append(f"| `{family.name}` | {family.kind} | {', '.join(family.labels)} | {text} |")
        lines.append("")
    lines += [
        "## Deprecated names",
        "",
        "These metrics have a new name. Each is also served under its old name with the same labels and values for one",
        "release. Change your dashboards and alerts to the new name. It has no history from before the upgrade;",
        "`new or old` in PromQL joins both.",
        "",
        "| deprecated | now |",
        "|---|---|",
        *(f"| `{old}` | `{new}` |" for old, new in renamed()),
        "",
    ]
    lines += ["## Labels", "", "The values of each label, and what bounds their number.", ""]
    lines += ["| label | values |", "|---|---|", *(f"| {name} | {text} |" for name, text in LABELS.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
