"""Pipeline: is everything counted, and how soon?"""

from __future__ import annotations

from deploy.grafana.code.panels import HALF, THIRD, Query, board, lines, number
from grafana_foundation_sdk.builders import dashboard

WINDOW = "[$__rate_interval]"
# Groups that only elect somebody never commit on their topics: their lag says nothing.
WORK = 'topic!~".+[.]control"'


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
                "max(tallystream_exporter_freshness_seconds)", unit="s", limits=[(10, "orange"), (60, "red")],
            )
        )
        .with_panel(
            number(
                "Not counted yet", "Usage messages that wait for a worker.",
                'sum(tallystream_exporter_consumer_lag_records{group=~".+-worker"})', limits=[(1000, "orange")],
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
                _dead_letters(),
                limits=[(1, "orange")], decimals=0,
            )
        )
        .with_panel(
            number(
                "Refused", "Requests that were answered 5xx, in the range shown: usage that may be lost.",
                'sum(increase(tallystream_gateway_requests_total{code=~"5.."}[$__range])) or vector(0)',
                limits=[(1, "red")], decimals=0,
            )
        )
        .with_panel(
            number(
                "Down", "Processes that Prometheus cannot read.", 'count(up{job="tallystream"} == 0) or vector(0)',
                limits=[(1, "red")],
            )
        )
        .with_panel(
            lines(
                "Records that wait", "By consumer group and topic: ours, and others that read our topics. Without the topics of elections.",
                Query(f"sum by (group, topic) (tallystream_exporter_consumer_lag_records{{{WORK}}})", "{{group}} {{topic}}"), top=10,
            )
        )
        .with_panel(
            lines(
                "How long they wait", "Age of the oldest record that was not processed; 60 s is an alert.",
                Query(f"max by (group, topic) (tallystream_exporter_consumer_lag_seconds{{{WORK}}})", "{{group}} {{topic}}"),
                Query("max(tallystream_exporter_freshness_seconds)", "freshness of the rows"), unit="s", top=10, limits=[(60, "red")],
            )
        )
        .with_panel(
            lines(
                "Objectives: rate of budget burnt", "Above 1 for long, a month's budget does not last; at 14.4 it is gone in two days, which is an alert. Freshness 99 %, durability 99.9 %.",
                Query("tallystream:freshness:bad_ratio1h / 0.01", "freshness, 1 h"),
                Query("tallystream:durability:bad_ratio1h / 0.001", "durability, 1 h"), span=HALF, top=2,
                limits=[(1, "orange"), (14.4, "red")],
            )
        )
        .with_panel(
            lines(
                "Since anything came in", "Age of the newest usage message and of the newest row: when both rise, nothing comes in.",
                Query("time() - max(tallystream_exporter_newest_usage_timestamp_seconds)", "usage message"),
                Query("time() - max(tallystream_exporter_newest_row_timestamp_seconds)", "row"), unit="s",
            )
        )
    )  # fmt: skip


def _latency(on: dashboard.Dashboard) -> dashboard.Dashboard:
    steps = (
        (
            "tallystream_gateway_event_to_durable_seconds",
            "event to durable",
            "From the client's event until it is promised kept.",
        ),
        (
            "tallystream_worker_append_to_row_seconds",
            "durable to row",
            "From Kafka's append until the row is acknowledged.",
        ),
        (
            "tallystream_worker_event_to_row_seconds",
            "event to row",
            "From the client's event until the row is acknowledged.",
        ),
    )
    on = on.with_row(dashboard.Row("Latency"))
    for metric, name, text in steps:
        on = on.with_panel(
            lines(
                name.capitalize(), text,
                Query(quantile(0.5, metric), "p50"), Query(quantile(0.99, metric), "p99"), unit="s", span=THIRD, log=True,
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
                Query(
                    f"{rate('tallystream_gateway_requests_total', 'provider, signal')}"
                    " and on (provider, signal) sum by (provider, signal) (tallystream_gateway_requests_total) > 0",
                    "{{provider}} {{signal}}",
                ),
                unit="reqps", stacked=True, span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Time to answer", "For logs: until the usage in the request is durable.",
                Query(quantile(0.5, "tallystream_gateway_request_duration_seconds", "signal"), "{{signal}} p50"),
                Query(quantile(0.99, "tallystream_gateway_request_duration_seconds", "signal"), "{{signal}} p99"),
                unit="s", span=THIRD, log=True,
            )
        )
        .with_panel(
            lines(
                "Bytes", "A second, of bodies after decompression.",
                Query("sum(rate(tallystream_gateway_body_bytes_sum[$__rate_interval]))", "bodies"), unit="Bps", span=THIRD,
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
                Query(quantile(0.99, "tallystream_gateway_kafka_ack_seconds"), "p99"), unit="s", span=THIRD, log=True,
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
                Query(rate("tallystream_worker_usage_events_total"), "counted"),
                Query(rate("tallystream_worker_duplicate_events_total"), "copies"),
                Query(rate("tallystream_worker_late_events_total"), "late"), unit="eps", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Rows", "A second, by topic.", Query(rate("tallystream_worker_public_rows_total", "kind"), "{{kind}}"),
                unit="rowsps", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Commit of a group", "Public rows, then changelog: mean waits; and the whole at p99.",
                Query(f"{rate('tallystream_worker_public_wait_seconds_total')} / {groups}", "rows, mean"),
                Query(f"{rate('tallystream_worker_changelog_wait_seconds_total')} / {groups}", "changelog, mean"),
                Query(quantile(0.99, "tallystream_worker_group_commit_seconds"), "whole, p99"), unit="s", span=THIRD, log=True,
            )
        )
        .with_panel(
            lines(
                "Partitions", "Owned and recovered, and waiting to be recovered.",
                Query("sum by (instance) (tallystream_worker_partitions)", "{{instance}}"),
                Query("sum(tallystream_worker_recovering_partitions)", "recovering"), span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Rebalances", "Assignments in the last 15 minutes, by worker.",
                Query("sum by (instance) (increase(tallystream_worker_rebalances_total[15m]))", "{{instance}}"), span=THIRD, top=4,
            )
        )
        .with_panel(
            lines(
                "Recovery and repair", "Changelog records read, messages skipped, seeks back; a second.",
                Query(rate("tallystream_worker_recovered_records_total"), "recovered"),
                Query(rate("tallystream_worker_skipped_messages_total"), "skipped"),
                Query(rate("tallystream_worker_repairs_total"), "seeks back"), unit="recps", span=THIRD, top=1,
            )
        )
    )  # fmt: skip


def _spool(on: dashboard.Dashboard) -> dashboard.Dashboard:
    full = "max by (instance) (tallystream_gateway_spool_bytes / tallystream_gateway_spool_max_bytes)"
    return (
        on.with_row(dashboard.Row("Spool"))
        .with_panel(
            lines("How full the spool is", "Full means 503: from then on usage is refused.", Query(full, "{{instance}}"), unit="percentunit", span=THIRD, top=1, limits=[(0.5, "red")])
        )
        .with_panel(
            lines(
                "Oldest in the spool", "Once it is older than the lateness, it will not be counted any more.",
                Query("max by (instance) (tallystream_gateway_spool_oldest_age_seconds)", "{{instance}}"), unit="s", span=THIRD, top=60,
            )
        )
        .with_panel(
            lines(
                "Messages by way", "A second: straight to Kafka, into the spool, out of it.",
                Query(rate("tallystream_gateway_messages_acked_total", "topic"), "{{topic}}"),
                Query(rate("tallystream_gateway_spooled_messages_total"), "into the spool"),
                Query(rate("tallystream_gateway_drained_messages_total"), "out of the spool"), unit="mps", span=THIRD,
            )
        )
    )  # fmt: skip


def _dead(on: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        on.with_row(dashboard.Row("What does not count"))
        .with_panel(
            lines(
                "Dead letters by reason", "In the last 15 minutes, by reason: `tallystream deadletters list` shows them.",
                Query("tallystream:dead_letters:increase15m > 0", "{{reason}}"),
                span=THIRD, top=4,
            )
        )
        .with_panel(
            lines(
                "Unrecognised usage", "Records with token counts that no rule of ours reads, in the last hour.",
                Query("tallystream:unrecognised_usage:increase1h", "{{provider}}"), span=THIRD, top=4,
            )
        )
        .with_panel(
            lines(
                "Without a price", "Requests since the counters began, by model: the price book does not know them.",
                Query("sum by (model) (max by (connection, client, model) (tallystream_exporter_requests_without_price_total)) > 0", "{{model}}"),
                span=THIRD, beside=True,
            )
        )
    )  # fmt: skip


def _dead_letters() -> str:
    """Return the dead letters of the range; of a process that is younger than it, all: `increase()` misses its first.

    The minute more is for what passes between a process's start and the first time that Prometheus reads it.
    """
    letters = '{__name__=~"tallystream_(gateway|worker)_dead_letters_total"}'
    young = 'on (instance) time() - process_start_time_seconds{job="tallystream"} < $__range_s + 60'
    grown = f"increase({letters}[$__range])"
    return f"sum(({letters} and {young}) > {grown} or {grown})"


def _health(on: dashboard.Dashboard) -> dashboard.Dashboard:
    cpu = 'rate(process_cpu_seconds_total{job="tallystream"}[$__rate_interval])'
    return (
        on.with_row(dashboard.Row("Processes"))
        .with_panel(
            lines(
                "Running", "How many processes of each component Prometheus can read.",
                Query('sum by (component) (up{job="tallystream"})', "{{component}}"), span=THIRD, beside=True,
            )
        )
        .with_panel(
            lines(
                "CPU", "Cores, of the busiest process of each component. The fold of a worker uses one at most.",
                Query(f"max by (component) ({cpu})", "{{component}}"), span=THIRD, beside=True,
            )
        )
        .with_panel(
            lines(
                "Memory", "Resident, of the largest process of each component.",
                Query('max by (component) (process_resident_memory_bytes{job="tallystream"})', "{{component}}"),
                unit="bytes", span=THIRD, beside=True,
            )
        )
    )  # fmt: skip
