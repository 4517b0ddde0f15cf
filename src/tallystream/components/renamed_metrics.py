"""Serves renamed metrics also under their old names for one release, so that dashboards can be changed.

To rename a metric, change its name where it is counted and add a line here. Remove the line one release later.
`docs/metrics.md` lists the old names as deprecated.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_RENAMED = {
    "gateway_event_to_durable_seconds": "event_to_durable_seconds",
    "gateway_unrecognised_usage_records": "unrecognised_usage_records",
    "gateway_not_durable_rounds": "gateway_not_durable",
    "worker_usage_events": "usage_events",
    "worker_duplicate_events": "duplicate_events",
    "worker_late_events": "late_events",
    "worker_unpriced_requests": "unpriced_requests",
    "worker_public_rows": "public_rows",
    "worker_append_to_row_seconds": "append_to_row_seconds",
    "worker_event_to_row_seconds": "event_to_row_seconds",
    "worker_group_commit_seconds": "group_commit_seconds",
    "worker_book": "book",
    "worker_folded_messages": "worker_folded",
    "worker_skipped_messages": "worker_skipped",
    "worker_tail_stalls": "worker_tails",
    "worker_public_wait_seconds": "worker_public_seconds",
    "worker_changelog_wait_seconds": "worker_changelog_seconds",
    "worker_changelog_rows": "worker_rows",
    "worker_expired_rows": "worker_expired",
    "worker_recovered_records": "worker_recovered",
    "worker_zombie_records": "worker_stale",
    "worker_late_writes": "worker_overtaken",
    "worker_unknown_records": "worker_foreign",
    "worker_recovering_partitions": "worker_partitions_recovering",
    "worker_lag_messages": "worker_lag",
    "exporter_consumer_lag_records": "consumer_lag_records",
    "exporter_consumer_lag_seconds": "consumer_lag_seconds",
    "exporter_topic_end_offset": "topic_end_offset",
    "exporter_freshness_seconds": "freshness_seconds",
    "exporter_newest_usage_timestamp_seconds": "newest_usage_timestamp_seconds",
    "exporter_newest_row_timestamp_seconds": "newest_row_timestamp_seconds",
    "exporter_tokens": "tokens",
    "exporter_reasoning_tokens": "reasoning_tokens",
    "exporter_cost_usd": "cost_usd",
    "exporter_requests": "requests",
    "exporter_requests_without_price": "requests_without_price",
    "exporter_team_cost_usd": "team_cost_usd",
    "exporter_team_tokens": "team_tokens",
    "exporter_team_requests": "team_requests",
    "exporter_hour_cost_usd": "hour_cost_usd",
    "exporter_connection_hour_cost_usd": "connection_hour_cost_usd",
    "exporter_hour_history_mean_usd": "hour_history_mean_usd",
    "exporter_hour_history_stddev_usd": "hour_history_stddev_usd",
    "exporter_hour_history_max_usd": "hour_history_max_usd",
    "exporter_connection_info": "connection_info",
    "exporter_connection_last_synced_timestamp_seconds": "connection_last_synced_timestamp_seconds",
    "exporter_lateness_seconds": "lateness_seconds",
    "exporter_consumer_offset": "consumer_position",
    "exporter_hour_history_size": "hour_history_size",
    "poller_active": "openai_poller_active",
    "poller_interval_seconds": "openai_poll_interval_seconds",
    "poller_last_success_timestamp_seconds": "openai_poll_last_success_timestamp_seconds",
    "poller_failures": "openai_poll_failures",
    "poller_request_retries": "openai_request_retries",
    "poller_buckets_published": "openai_buckets_published",
    "poller_buckets_restated": "openai_buckets_restated",
    "poller_buckets_unchanged": "openai_buckets_unchanged",
    "poller_buckets_missing": "openai_buckets_missing",
    "poller_records_repaired": "openai_records_repaired",
    "poller_polls_discarded": "openai_polls_discarded",
    "poller_settled_timestamp_seconds": "openai_settled_timestamp_seconds",
    "poller_history_start_timestamp_seconds": "openai_history_start_timestamp_seconds",
    "poller_open_buckets": "openai_open_window_buckets",
    "poller_billed_offset": "openai_billed_offset",
    "poller_poll_duration_seconds": "openai_poll_duration_seconds",
    "sink_active": "port_sink_active",
    "sink_throttled_requests": "port_throttled",
    "sink_behind_seconds": "port_seconds_behind",
    "sink_deferred_entities": "port_backlog_parked",
    "sink_request_rate_per_second": "port_request_rate_limit",
    "sink_remaining_calls": "port_rate_limit_remaining",
    "sink_entities_upserted": "port_entities_upserted",
    "sink_entities_unchanged": "port_entities_unchanged",
    "sink_entities_failed": "port_entities_failed",
    "sink_entities_deleted": "port_entities_deleted",
    "sink_entities_missing_relation": "port_entities_missing_relation",
    "sink_mapping_errors": "port_mapping_errors",
    "sink_bulk_requests": "port_bulk_requests",
    "sink_entities_resent": "port_entities_resent",
    "sink_documents_swept": "port_documents_swept",
    "sink_sweeps": "port_sweeps",
    "sink_sweep_running": "port_sweep_running",
    "sink_backlog_documents": "port_backlog_documents",
    "sink_backlog_entities": "port_backlog_entities",
    "sink_repetitions_due": "port_repetitions_due",
    "sink_source_offset": "port_source_offset",
    "sink_row_to_port_seconds": "row_to_port_seconds",
}
OLD_NAMES = {f"tallystream_{new}": f"tallystream_{old}" for new, old in _RENAMED.items()}
"""New and old name, both without `_total` and `_info`. All old names are those of release 0.1.0."""


class WithOldNames(Collector):
    """Collects from a registry, and repeats each renamed metric under its old name."""

    def __init__(self, registry: Collector) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield the families, each followed by its alias."""
        for metric in self._registry.collect():
            yield metric
            if (old := OLD_NAMES.get(metric.name)) is not None:
                yield _renamed(metric, old)


def _renamed(metric: Metric, name: str) -> Metric:
    alias = Metric(name, f"Deprecated: the old name of {metric.name}.", metric.type, metric.unit)
    begin = len(metric.name)
    alias.samples = [Sample(name + sample.name[begin:], *sample[1:]) for sample in metric.samples]
    return alias
