"""Pipeline: is everything counted, and how soon?"""

from __future__ import annotations

from deploy.grafana.code.panels import HALF, THIRD, Query, board, lines, number
from grafana_foundation_sdk.builders import dashboard

WINDOW = "[$__rate_interval]"


def quantile(share: float, metric: str, by: str = "") -> str:
    """Return a quantile of a histogram, by a label or over all."""
    return f"histogram_quantile({share}, sum by ({f'{by}, ' if by else ''}le) (rate({metric}_bucket{WINDOW})))"


def rate(metric: str, by: str = "", labels: str = "") -> str:
    """Return a counter's rate, by labels or over all."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{f'{{{labels}}}' if labels else ''}{WINDOW}))"


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    return _health(
        _dead(_spool(_worker(_gateway(_latency(_now(
            board("tallystream-pipeline", "Pipeline", "Lag, latency, throughput, spool, dead letters.", since="now-1h")
        ))))))
    )  # fmt: skip


def _now(on: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        on.with_row(dashboard.Row("Now"))
        .with_panel(
            number(
                "Freshness", "Age of the oldest usage message that no row shows yet.",
                "max(tallystream_freshness_seconds)", unit="s", limits=[(10, "orange"), (60, "red")],
            )
        )
        .with_panel(
            number(
                "Lag", "Usage messages the workers have not processed.",
                'sum(tallystream_consumer_lag_records{group=~".+-worker"})', limits=[(1000, "orange")],
            )
        )
        .with_panel(
            number(
                "In spools", "Messages that gateways keep because Kafka does not take them.",
                "sum(tallystream_gateway_spool_messages)", limits=[(1, "orange")],
            )
        )
        .with_panel(
            number(
                "Dead letters", "Records that did not count, in the range shown.",
                'sum(increase({__name__=~"tallystream_(gateway|worker)_dead_letters_total"}[$__range]))',
                limits=[(1, "orange")], decimals=0,
            )
        )
        .with_panel(
            number(
                "Not durable", "Requests that were answered 5xx, in the range shown: usage that may be lost.",
                'sum(increase(tallystream_gateway_requests_total{code=~"5.."}[$__range])) or vector(0)',
                limits=[(1, "red")], decimals=0,
            )
        )
        .with_panel(
            number(
                "Down", "Components that Prometheus cannot read.", 'count(up{job="tallystream"} == 0) or vector(0)',
                limits=[(1, "red")],
            )
        )
        .with_panel(
            lines(
                "Lag in records", "By consumer group, of ours and of others that read our topics.",
                Query("sum by (group, topic) (tallystream_consumer_lag_records)", "{{group}} {{topic}}"),
            )
        )
        .with_panel(
            lines(
                "Lag in time", "Age of the oldest record that was not processed.",
                Query("max by (group, topic) (tallystream_consumer_lag_seconds)", "{{group}} {{topic}}"),
                Query("max(tallystream_freshness_seconds)", "freshness of the rows"), unit="s",
            )
        )
        .with_panel(
            lines(
                "Objectives: budget burnt", "Above 1, a month's budget does not last. Freshness 99 %, durability 99.9 %.",
                Query("tallystream:freshness:bad_ratio1h / 0.01", "freshness, 1 h"),
                Query("tallystream:durability:bad_ratio1h / 0.001", "durability, 1 h"), span=HALF,
            )
        )
        .with_panel(
            lines(
                "Newest", "Age of the newest usage message and of the newest row: when both rise, nothing comes in.",
                Query("time() - max(tallystream_newest_usage_timestamp_seconds)", "usage message"),
                Query("time() - max(tallystream_newest_row_timestamp_seconds)", "row"), unit="s",
            )
        )
    )  # fmt: skip


def _latency(on: dashboard.Dashboard) -> dashboard.Dashboard:
    steps = (
        (
            "tallystream_event_to_durable_seconds",
            "event to durable",
            "From the client's event until it is promised kept.",
        ),
        ("tallystream_append_to_row_seconds", "durable to row", "From Kafka's append until the row is acknowledged."),
        ("tallystream_event_to_row_seconds", "event to row", "From the client's event until the row is acknowledged."),
    )
    on = on.with_row(dashboard.Row("Latency"))
    for metric, name, text in steps:
        on = on.with_panel(
            lines(
                name.capitalize(), text,
                Query(quantile(0.5, metric), "p50"), Query(quantile(0.99, metric), "p99"), unit="s", span=THIRD,
            )
        )  # fmt: skip
    return on


def _gateway(on: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        on.with_row(dashboard.Row("Gateway"))
        .with_panel(
            lines(
                "Requests by answer", "A second.",
                Query(rate("tallystream_gateway_requests_total", "code"), "{{code}}"), unit="reqps", stacked=True, span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Requests by provider and signal", "A second.",
                Query(rate("tallystream_gateway_requests_total", "provider, signal"), "{{provider}} {{signal}}"),
                unit="reqps", stacked=True, span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Time to answer", "For logs: until the usage in the request is durable.",
                Query(quantile(0.5, "tallystream_gateway_request_duration_seconds", "signal"), "{{signal}} p50"),
                Query(quantile(0.99, "tallystream_gateway_request_duration_seconds", "signal"), "{{signal}} p99"),
                unit="s", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Bodies", "Bytes a second after decompression, and encodings of requests.",
                Query("sum(rate(tallystream_gateway_body_bytes_sum[$__rate_interval]))", "bytes"), unit="Bps", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Encodings", "Requests a second by encoding.",
                Query(rate("tallystream_gateway_requests_total", "encoding"), "{{encoding}}"), unit="reqps", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Kafka's acknowledgement", "All in-sync replicas.",
                Query(quantile(0.5, "tallystream_gateway_kafka_ack_seconds"), "p50"),
                Query(quantile(0.99, "tallystream_gateway_kafka_ack_seconds"), "p99"), unit="s", span=THIRD,
            )
        )
    )  # fmt: skip


def _worker(on: dashboard.Dashboard) -> dashboard.Dashboard:
    groups = rate("tallystream_worker_groups_total")
    return (
        on.with_row(dashboard.Row("Worker"))
        .with_panel(
            lines(
                "Usage events", "A second: accepted by gateways, counted and recognised as copies by workers.",
                Query(rate("tallystream_gateway_usage_events_total"), "accepted"),
                Query(rate("tallystream_usage_events_total"), "counted"),
                Query(rate("tallystream_duplicate_events_total"), "copies"),
                Query(rate("tallystream_late_events_total"), "late"), unit="cps", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Rows", "A second, by topic.", Query(rate("tallystream_public_rows_total", "kind"), "{{kind}}"),
                unit="cps", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Commit of a group", "Public rows, then changelog: mean waits; and the whole at p99.",
                Query(f"{rate('tallystream_worker_public_seconds_total')} / {groups}", "rows, mean"),
                Query(f"{rate('tallystream_worker_changelog_seconds_total')} / {groups}", "changelog, mean"),
                Query(quantile(0.99, "tallystream_group_commit_seconds"), "whole, p99"), unit="s", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Partitions", "Owned and recovered, and waiting to be recovered.",
                Query("sum by (instance) (tallystream_worker_partitions)", "{{instance}}"),
                Query("sum(tallystream_worker_partitions_recovering)", "recovering"), span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Rebalances", "Assignments in the last 15 minutes, by worker.",
                Query("sum by (instance) (increase(tallystream_worker_rebalances_total[15m]))", "{{instance}}"), span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Recovery and repair", "Changelog records read, messages skipped, seeks back; a second.",
                Query(rate("tallystream_worker_recovered_total"), "recovered"),
                Query(rate("tallystream_worker_skipped_total"), "skipped"),
                Query(rate("tallystream_worker_repairs_total"), "seeks back"), unit="cps", span=THIRD,
            )
        )
    )  # fmt: skip


def _spool(on: dashboard.Dashboard) -> dashboard.Dashboard:
    full = "max by (instance) (tallystream_gateway_spool_bytes / tallystream_gateway_spool_max_bytes)"
    return (
        on.with_row(dashboard.Row("Spool"))
        .with_panel(
            lines("Spool, full", "Full means 503.", Query(full, "{{instance}}"), unit="percentunit", span=THIRD)
        )
        .with_panel(
            lines(
                "Oldest in the spool", "Beyond the lateness it is no longer counted.",
                Query("max by (instance) (tallystream_gateway_spool_oldest_age_seconds)", "{{instance}}"), unit="s", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Messages by way", "A second: straight to Kafka, into the spool, out of it.",
                Query(rate("tallystream_gateway_messages_acked_total", "topic"), "{{topic}}"),
                Query(rate("tallystream_gateway_spooled_messages_total"), "into the spool"),
                Query(rate("tallystream_gateway_drained_messages_total"), "out of the spool"), unit="cps", span=THIRD,
            )
        )
    )  # fmt: skip


def _dead(on: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        on.with_row(dashboard.Row("What does not count"))
        .with_panel(
            lines(
                "Dead letters by reason", "In the last 5 minutes, by reason.",
                Query('sum by (reason) (increase({__name__=~"tallystream_(gateway|worker)_dead_letters_total"}[5m])) > 0', "{{reason}}"),
                span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Unrecognised usage", "Records with token counts that no rule of ours reads, in the last 5 minutes.",
                Query("sum by (provider) (increase(tallystream_unrecognised_usage_records_total[5m]))", "{{provider}}"), span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Without a price", "Requests in all, by model.",
                Query("sum by (model) (max by (connection, client, model) (tallystream_requests_without_price_total)) > 0", "{{model}}"),
                span=THIRD,
            )
        )
    )  # fmt: skip


def _health(on: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        on.with_row(dashboard.Row("Processes"))
        .with_panel(
            lines("Up", "1 while Prometheus can read it.", Query('min by (component, instance) (up{job="tallystream"})', "{{component}} {{instance}}"), span=THIRD)
        )
        .with_panel(
            lines(
                "CPU", "Cores.",
                Query('sum by (component, instance) (rate(process_cpu_seconds_total{job="tallystream"}[$__rate_interval]))', "{{component}} {{instance}}"),
                span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Memory", "Resident.",
                Query('sum by (component, instance) (process_resident_memory_bytes{job="tallystream"})', "{{component}} {{instance}}"),
                unit="bytes", span=THIRD,
            )
        )
    )  # fmt: skip
