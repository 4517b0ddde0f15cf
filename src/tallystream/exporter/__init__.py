"""The exporter: Prometheus metrics that no other component can provide reliably.

    consumer groups' offsets -----> lag, in records and in seconds     (lag, timestamps)
    topic cost.session-hours -----> tokens and cost as counters, hours (labels, counters, cost_history)
    topics activity, connections -> when each connection last sent     (connections)

It reads only Kafka, so its metrics stay correct while no worker runs. Run one for each deployment.
"""

from tallystream.exporter.config import ExporterConfig
from tallystream.exporter.service import MetricsExporter

__all__ = ["ExporterConfig", "MetricsExporter"]
