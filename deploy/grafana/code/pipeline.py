"""Pipeline: shows whether everything is counted, and how soon."""

from __future__ import annotations

from deploy.grafana.code.panels import HALF, THIRD, Query, board, lines, number
from grafana_foundation_sdk.builders import dashboard

WINDOW = "[$__rate_interval]"
# Consumer groups that only elect a leader never commit offsets on their topics, so their lag has no meaning.
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
                "Freshness", "Age of the oldest usage message that is not in the rows yet.",
                "max(tallystream_exporter_freshness_seconds)", unit="s", limits=[(10, "orange"), (60, "red")],
            )
        )
        .with_panel(
            number(
                "Not counted yet", "Usage messages that no worker has processed yet.",
                'sum(tallystream_exporter_consumer_lag_records{group=~".+-worker"})', limits=[(1000, "orange")],
            )
        )
        .with_panel(
            number(
                "In spools", "Messages that gateways keep on disk because Kafka does not accept them.",
                "sum(tallystream_gateway_spool_messages)", limits=[(1, "orange")],
            )
        )
        .with_panel(
            number(
                "Dead letters", "Records in the selected range that could not be counted.",
                _dead_letters(),
                limits=[(1, "orange")], decimals=0,
            )
        )
        .with_panel(
            number(
                "Refused", "Requests in the selected range that were answered 5xx. Their usage may be lost.",
                'sum(increase(tallystream_gateway_requests_total{code=~"5.."}[$__range])) or vector(0)',
                limits=[(1, "red")], decimals=0,
            )
        )
        .with_panel(
            number(
                "Down", "Processes whose metrics Prometheus cannot read.", 'count(up{job="tallystream"} == 0) or vector(0)',
                limits=[(1, "red")],
            )
        )
        .with_panel(
            lines(
                "Consumer lag, records", "Records that are not processed yet, for all consumer groups that read our topics. Election topics are left out.",
                Query(f"sum by (group, topic) (tallystream_exporter_consumer_lag_records{{{WORK}}})", "{{group}} {{topic}}"), top=10,
            )
        )
        .with_panel(
            lines(
                "Consumer lag, time", "Age of the oldest record that is not processed yet. An alert fires at 60 s.",
                Query(f"max by (group, topic) (tallystream_exporter_consumer_lag_seconds{{{WORK}}})", "{{group}} {{topic}}"),
                Query("max(tallystream_exporter_freshness_seconds)", "freshness of the rows"), unit="s", top=10, limits=[(60, "red")],
            )
        )
        .with_panel(
            lines(
                "Objectives: error budget burn rate", "At 1, the error budget lasts exactly a month; at 14.4 it lasts two days, and an alert fires. Objectives: freshness 99 %, durability 99.9 %.",
                Query("tallystream:freshness:bad_ratio1h / 0.01", "freshness, 1 h"),
                Query("tallystream:durability:bad_ratio1h / 0.001", "durability, 1 h"), span=HALF, top=2,
                limits=[(1, "orange"), (14.4, "red")],
            )
        )
        .with_panel(
            lines(
                "Time since the last usage", "Age of the newest usage message and of the newest row. If both rise, no usage arrives.",
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
            "From the client's event until it is acknowledged as stored.",
        ),
        (
            "tallystream_worker_append_to_row_seconds",
            "durable to row",
            "From the append to the usage topic until Kafka acknowledges the row.",
        ),
        (
            "tallystream_worker_event_to_row_seconds",
            "event to row",
            "From the client's event until Kafka acknowledges the row.",
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
                "Requests by status", "Requests per second, by status code.",
                Query(rate("tallystream_gateway_requests_total", "code"), "{{code}}"), unit="reqps", stacked=True, span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Requests by provider and signal", "Requests per second.",
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
                "Response time", "For logs, this includes the time until the usage in the request is stored durably.",
                Query(quantile(0.5, "tallystream_gateway_request_duration_seconds", "signal"), "{{signal}} p50"),
                Query(quantile(0.99, "tallystream_gateway_request_duration_seconds", "signal"), "{{signal}} p99"),
                unit="s", span=THIRD, log=True,
            )
        )
        .with_panel(
            lines(
                "Bytes", "Bytes per second in request bodies, after decompression.",
                Query("sum(rate(tallystream_gateway_body_bytes_sum[$__rate_interval]))", "bodies"), unit="Bps", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Encodings", "Requests per second, by encoding.",
                Query(rate("tallystream_gateway_requests_total", "encoding"), "{{encoding}}"), unit="reqps", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Kafka's acknowledgement", "Time until all in-sync replicas have acknowledged a batch.",
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
                "Usage events", "Events per second: accepted by gateways; counted, recognised as copies, and late in workers.",
                Query(rate("tallystream_gateway_usage_events_total"), "accepted"),
                Query(rate("tallystream_worker_usage_events_total"), "counted"),
                Query(rate("tallystream_worker_duplicate_events_total"), "copies"),
                Query(rate("tallystream_worker_late_events_total"), "late"), unit="eps", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Rows", "Rows written per second, by kind.", Query(rate("tallystream_worker_public_rows_total", "kind"), "{{kind}}"),
                unit="rowsps", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Commit of a group", "Mean time to wait for the public rows and for the changelog, and p99 of the whole commit.",
                Query(f"{rate('tallystream_worker_public_wait_seconds_total')} / {groups}", "rows, mean"),
                Query(f"{rate('tallystream_worker_changelog_wait_seconds_total')} / {groups}", "changelog, mean"),
                Query(quantile(0.99, "tallystream_worker_group_commit_seconds"), "whole, p99"), unit="s", span=THIRD, log=True,
            )
        )
        .with_panel(
            lines(
                "Partitions", "Partitions that each worker owns and has recovered, and partitions that are still being recovered.",
                Query("sum by (instance) (tallystream_worker_partitions)", "{{instance}}"),
                Query("sum(tallystream_worker_recovering_partitions)", "recovering"),
                Query("sum by (instance) (tallystream_worker_standby_partitions) > 0", "{{instance}}, copies"), span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Rebalances", "Assignments within 15 minutes, by worker.",
                Query("sum by (instance) (increase(tallystream_worker_rebalances_total[15m]))", "{{instance}}"), span=THIRD, top=4,
            )
        )
        .with_panel(
            lines(
                "Recovery and repair", "Changelog records read and copied for other workers' partitions, messages skipped and seeks back, per second.",
                Query(rate("tallystream_worker_recovered_records_total"), "recovered"),
                Query(rate("tallystream_worker_standby_records_total"), "copied"),
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
            lines("Spool usage", "At 100 %, the gateway answers 503 and usage is refused.", Query(full, "{{instance}}"), unit="percentunit", span=THIRD, top=1, limits=[(0.5, "red")])
        )
        .with_panel(
            lines(
                "Oldest message in the spool", "A message that is older than the lateness can no longer be counted.",
                Query("max by (instance) (tallystream_gateway_spool_oldest_age_seconds)", "{{instance}}"), unit="s", span=THIRD, top=60,
            )
        )
        .with_panel(
            lines(
                "Messages by path", "Messages per second: directly to Kafka, into the spool, and out of the spool.",
                Query(rate("tallystream_gateway_messages_acked_total", "topic"), "{{topic}}"),
                Query(rate("tallystream_gateway_spooled_messages_total"), "into the spool"),
                Query(rate("tallystream_gateway_drained_messages_total"), "out of the spool"), unit="mps", span=THIRD,
            )
        )
    )  # fmt: skip


def _dead(on: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        on.with_row(dashboard.Row("Not counted or not priced"))
        .with_panel(
            lines(
                "Dead letters by reason", "Within 15 minutes. `tallystream deadletters list` shows them.",
                Query("tallystream:dead_letters:increase15m > 0", "{{reason}}"),
                span=THIRD, top=4,
            )
        )
        .with_panel(
            lines(
                "Unrecognised usage", "Records within an hour that contain token counts but are not recognised.",
                Query("tallystream:unrecognised_usage:increase1h", "{{provider}}"), span=THIRD, top=4,
            )
        )
        .with_panel(
            lines(
                "Without a price", "Requests since the counters began, by model, that the price book has no price for.",
                Query("sum by (model) (max by (connection, client, model) (tallystream_exporter_requests_without_price_total)) > 0", "{{model}}"),
                span=THIRD, beside=True,
            )
        )
    )  # fmt: skip


def _dead_letters() -> str:
    """Return the dead letters in the range; for a process younger than the range, the whole counter.

    `increase()` would miss the first ones of a young process. A minute is added for the time between the start of a
    process and the first time that Prometheus reads it.
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
                "Running", "Number of processes of each component that Prometheus can read.",
                Query('sum by (component) (up{job="tallystream"})', "{{component}}"), span=THIRD, beside=True,
            )
        )
        .with_panel(
            lines(
                "CPU", "Cores used by the busiest process of each component. A worker's fold uses at most one.",
                Query(f"max by (component) ({cpu})", "{{component}}"), span=THIRD, beside=True,
            )
        )
        .with_panel(
            lines(
                "Memory", "Resident memory of the largest process of each component.",
                Query('max by (component) (process_resident_memory_bytes{job="tallystream"})', "{{component}}"),
                unit="bytes", span=THIRD, beside=True,
            )
        )
    )  # fmt: skip
