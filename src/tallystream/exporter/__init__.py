"""The exporter: what only an onlooker can tell, as Prometheus metrics.

    consumer groups' offsets -----> lag, in records and in seconds     (groups, stamps)
    topic cost.session-hours -----> tokens and cost as counters, hours (parts, ledger, history)
    topics activity, connections -> when each connection last sent     (registers)

It reads Kafka alone, so it is right while every worker is dead. Run one a deployment.
"""

from tallystream.exporter.config import ExporterConfig
from tallystream.exporter.service import MetricsExporter

__all__ = ["ExporterConfig", "MetricsExporter"]
