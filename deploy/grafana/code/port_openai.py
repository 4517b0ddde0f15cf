"""Port and OpenAI: what goes out to the catalogue, what OpenAI itself reports."""

from __future__ import annotations

from deploy.grafana.code.panels import THIRD, Query, board, lines, number
from deploy.grafana.code.pipeline import quantile, rate
from grafana_foundation_sdk.builders import dashboard


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    return _openai(
        _port(board("tallystream-port-openai", "Port and OpenAI", "The sink and the poller.", since="now-24h"))
    )


def _port(on: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        on.with_row(dashboard.Row("Port"))
        .with_panel(
            number(
                "Port is behind", "Age of the oldest change that is not in Port yet.",
                "max(tallystream_port_seconds_behind)", unit="s", limits=[(60, "orange"), (300, "red")],
            )
        )
        .with_panel(number("Active sinks", "One writes, the others stand by.", "sum(tallystream_port_sink_active)"))
        .with_panel(
            number("Waiting", "Entities on their way to Port.", "sum(tallystream_port_backlog_entities)")
        )
        .with_panel(
            number(
                "Refused", "Entities Port refuses for good, since the sink started.",
                "sum(tallystream_port_entities_failed_total) or vector(0)", limits=[(1, "orange")],
            )
        )
        .with_panel(
            number(
                "Throttled", "429 answers in the range shown.",
                "sum(increase(tallystream_port_throttled_total[$__range]))", limits=[(1, "orange")], decimals=0,
            )
        )
        .with_panel(
            number(
                "Calls left", "Of Port's period, as Port says; -1: it has not said yet.",
                "min(tallystream_port_rate_limit_remaining)",
            )
        )
        .with_panel(
            lines(
                "Entities", "A second: acknowledged by Port, not sent because Port has them, sent again.",
                Query(rate("tallystream_port_entities_upserted_total", "blueprint"), "{{blueprint}}"),
                Query(rate("tallystream_port_entities_unchanged_total"), "unchanged"),
                Query(rate("tallystream_port_entities_resent_total"), "sent again"), unit="cps", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Bulk requests", "A second, by result, and the pace that is allowed.",
                Query(rate("tallystream_port_bulk_requests_total", "result"), "{{result}}"),
                Query("max(tallystream_port_request_rate_limit)", "allowed"), unit="reqps", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Row to Port", "From a row's append to Port's acknowledgement of its entity.",
                Query(quantile(0.5, "tallystream_row_to_port_seconds"), "p50"),
                Query(quantile(0.99, "tallystream_row_to_port_seconds"), "p99"), unit="s", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Backlog", "Changed documents, entities on their way, and those that wait for another attempt.",
                Query("sum(tallystream_port_backlog_documents)", "documents"),
                Query("sum(tallystream_port_backlog_entities)", "entities"),
                Query("sum(tallystream_port_backlog_parked)", "of these, parked"), span=THIRD,
            )
        )
    )  # fmt: skip


def _openai(on: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        on.with_row(dashboard.Row("OpenAI"))
        .with_panel(
            lines(
                "Last poll", "Age of the last successful poll, by resource.",
                Query("time() - max by (resource) (tallystream_openai_poll_last_success_timestamp_seconds) < 1e9", "{{resource}}"),
                unit="s", span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Failed polls and retries", "In the last hour.",
                Query("sum by (resource, reason) (increase(tallystream_openai_poll_failures_total[1h])) > 0", "{{resource}} {{reason}}"),
                Query("sum by (reason) (increase(tallystream_openai_request_retries_total[1h])) > 0", "retry: {{reason}}"),
                Query("sum(tallystream_openai_poller_active)", "active pollers"), span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Buckets", "In the last hour: written, restated by OpenAI, unchanged.",
                Query("sum by (resource) (increase(tallystream_openai_buckets_published_total[1h]))", "{{resource}}"),
                Query("sum(increase(tallystream_openai_buckets_restated_total[1h]))", "restated"),
                Query("sum(increase(tallystream_openai_buckets_unchanged_total[1h]))", "unchanged"), span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Duration of a poll", "Retries and publishing included, p99.",
                Query(quantile(0.99, "tallystream_openai_poll_duration_seconds", "resource"), "{{resource}}"), unit="s", span=THIRD,
            )
        )
    )  # fmt: skip
