"""Port and OpenAI: what goes out to the catalogue, what OpenAI itself reports."""

from __future__ import annotations

from deploy.grafana.code.panels import HALF, THIRD, Query, board, lines, number
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
                "Delay", "Age of the oldest change that is not in Port yet.",
                "max(tallystream_sink_behind_seconds)", unit="s", limits=[(60, "orange"), (300, "red")],
            )
        )
        .with_panel(number("Active sinks", "One sink writes; the others stand by.", "sum(tallystream_sink_active)", decimals=0))
        .with_panel(
            number("Waiting", "Entities waiting to be sent to Port.", "sum(tallystream_sink_backlog_entities)")
        )
        .with_panel(
            number(
                "Refused", "Entities that Port has permanently refused since the sink started.",
                "sum(tallystream_sink_entities_failed_total) or vector(0)", limits=[(1, "orange")],
            )
        )
        .with_panel(
            number(
                "Throttled", "429 responses in the selected range.",
                "sum(increase(tallystream_sink_throttled_requests_total[$__range]))", limits=[(1, "orange")], decimals=0,
            )
        )
        .with_panel(
            number(
                "Requests left", "Requests that Port still allows in its current period; -1 if Port has not reported it yet.",
                "min(tallystream_sink_remaining_calls)",
            )
        )
        .with_panel(
            lines(
                "Entities", "Entities per second: acknowledged by Port, not sent because they are unchanged, and sent again.",
                Query(rate("tallystream_sink_entities_upserted_total", "blueprint"), "{{blueprint}}"),
                Query(rate("tallystream_sink_entities_unchanged_total"), "unchanged"),
                Query(rate("tallystream_sink_entities_resent_total"), "sent again"), unit="ops", span=HALF, beside=True,
            )
        )
        .with_panel(
            lines(
                "Bulk requests", "Requests per second, by result, and the allowed rate.",
                Query(rate("tallystream_sink_bulk_requests_total", "result"), "{{result}}"),
                Query("max(tallystream_sink_request_rate_per_second)", "allowed"), unit="reqps", span=HALF,
            )
        )
        .with_panel(
            lines(
                "Row to Port", "From a row's append to Port's acknowledgement of its entity.",
                Query(quantile(0.5, "tallystream_sink_row_to_port_seconds"), "p50"),
                Query(quantile(0.99, "tallystream_sink_row_to_port_seconds"), "p99"), unit="s", span=HALF, log=True,
            )
        )
        .with_panel(
            lines(
                "Backlog", "Changed documents, entities waiting to be sent, and those deferred for another attempt.",
                Query("sum(tallystream_sink_backlog_documents)", "documents"),
                Query("sum(tallystream_sink_backlog_entities)", "entities"),
                Query("sum(tallystream_sink_deferred_entities)", "of these, deferred"), span=HALF, top=10,
            )
        )
    )  # fmt: skip


def _openai(on: dashboard.Dashboard) -> dashboard.Dashboard:
    age = "time() - max by (resource) (tallystream_poller_last_success_timestamp_seconds > 0)"
    stale = "3 * max(tallystream_poller_interval_seconds)"
    failures = "tallystream_poller_failures_total"
    return (
        on.with_row(dashboard.Row("OpenAI"))
        .with_panel(
            number("Active pollers", "One poller works; the others stand by.", "sum(tallystream_poller_active)", span=THIRD, decimals=0)
        )
        .with_panel(
            number(
                "Oldest resource", "Longest time since the last successful poll of a resource.", f"max({age})", unit="s", span=THIRD,
            )
        )
        .with_panel(
            number(
                "Failed polls", "Polls in the last day that failed after all retries.", f"sum(increase({failures}[1d])) or vector(0)",
                span=THIRD, limits=[(1, "orange")], decimals=0,
            )
        )
        .with_panel(
            lines(
                "Time since the last poll", "Time since the last successful poll of each resource. An alert fires after three intervals.",
                Query(age, "{{resource}}"), Query(stale, "alert"), unit="s", beside=True,
            )
        )
        .with_panel(
            lines(
                "Failures and retries", "Failed polls and retried requests within an hour.",
                Query(f"sum(increase({failures}[1h])) or vector(0)", "failed polls"),
                Query(f"sum by (resource, reason) (increase({failures}[1h])) > 0", "{{resource}} {{reason}}"),
                Query("sum by (reason) (increase(tallystream_poller_request_retries_total[1h])) > 0", "retry: {{reason}}"),
                top=4, beside=True,
            )
        )
        .with_panel(
            lines(
                "Buckets written", "Buckets published within a day, by resource, and the totals of restated and unchanged ones.",
                Query("sum by (resource) (increase(tallystream_poller_buckets_published_total[1d]))", "{{resource}}"),
                Query("sum(increase(tallystream_poller_buckets_restated_total[1d]))", "restated"),
                Query("sum(increase(tallystream_poller_buckets_unchanged_total[1d]))", "unchanged"), beside=True,
            )
        )
        .with_panel(
            lines(
                "Duration of a poll", "p99 of the last day, including retries and publishing.",
                Query("histogram_quantile(0.99, sum by (resource, le) (rate(tallystream_poller_poll_duration_seconds_bucket[1d])))", "{{resource}}"),
                unit="s", log=True, beside=True,
            )
        )
    )  # fmt: skip
