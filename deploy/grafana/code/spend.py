"""Spend: what agents cost, now and in the selected range, by model, connection and team.

All panels use the exporter's counters, which equal the exact rows and never decrease. The spend in a range is therefore
a plain difference, because `increase()` would extrapolate and miss the first value of a series. A series that is younger
than the range counts from zero.
"""

from __future__ import annotations

from deploy.grafana.code.panels import (
    FULL,
    THIRD,
    USD,
    Query,
    bars,
    board,
    choice,
    grid,
    lines,
    number,
)
from grafana_foundation_sdk.builders import dashboard

CHOSEN = 'connection=~"$connection",client=~"$client",model=~"$model"'


def exact(metric: str, by: str, labels: str = "") -> str:
    """Return the counters by label; `max` avoids counting twice when two exporters are scraped."""
    return f"max by ({by}) ({metric}{{{labels}}})"


def spent(metric: str, over: str = "", labels: str = CHOSEN, within: str = "connection, client, model") -> str:
    """Return by how much a counter has risen in the selected range, summed `over` labels."""
    now, before = exact(metric, within, labels), f"max by ({within}) ({metric}{{{labels}}} offset $__range)"
    return f"sum{f' by ({over})' if over else ''} ({now} - ({before} or 0 * {now}))"


def range_of(metric: str, over: str = "") -> str:
    """Return the increase of a usage counter in the range, for all selected series together or by a label."""
    within = "connection, client, model" + (", kind" if metric == "tallystream_exporter_tokens_total" else "")
    return spent(metric, over, within=within)


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    teams = {"labels": "", "within": "team"}
    return (
        board("tallystream-spend", "Spend", "What coding agents cost, computed from the exact rows.", since="now-24h")
        .with_variable(choice("connection", "Connection", "label_values(tallystream_exporter_requests_total, connection)"))
        .with_variable(choice("client", "Client", "label_values(tallystream_exporter_requests_total, client)"))
        .with_variable(choice("model", "Model", "label_values(tallystream_exporter_requests_total, model)"))
        .with_row(dashboard.Row("Now"))
        .with_panel(
            number("Cost", "Cost in the selected range.", range_of("tallystream_exporter_cost_usd_total"), unit=USD, decimals=2)
        )
        .with_panel(
            number(
                "This hour", "Cost of the current UTC hour so far, by event time, for all connections.",
                'max(tallystream_exporter_hour_cost_usd{hour="current"})', unit=USD, decimals=2,
            )
        )
        .with_panel(number("Tokens", "Tokens of all kinds in the selected range.", range_of("tallystream_exporter_tokens_total")))
        .with_panel(
            number("Requests", "Billed model responses in the selected range.", range_of("tallystream_exporter_requests_total"))
        )
        .with_panel(
            number(
                "Without a price", "Requests in the selected range that the price book has no price for. The cost does not include them.",
                range_of("tallystream_exporter_requests_without_price_total"), limits=[(1, "orange")],
            )
        )
        .with_panel(
            number(
                "Total cost", "Cost since the counters began.",
                f"sum({exact('tallystream_exporter_cost_usd_total', 'connection, client, model', CHOSEN)})",
                unit=USD, decimals=2,
            )
        )
        .with_panel(
            number(
                "Input from the cache", "Share of the input tokens in the selected range that were read from the cache.",
                _cached(), unit="percentunit", span=THIRD, decimals=1,
            )
        )
        .with_panel(
            number(
                "Cost per request", "Mean cost of the priced requests in the selected range.",
                f"{range_of('tallystream_exporter_cost_usd_total')} / ({range_of('tallystream_exporter_requests_total')}"
                f" - {range_of('tallystream_exporter_requests_without_price_total')} > 0)",
                unit=USD, span=THIRD, decimals=4,
            )
        )
        .with_panel(
            number(
                "Reasoning", "Reasoning tokens in the selected range; they are part of the output tokens.",
                range_of("tallystream_exporter_reasoning_tokens_total"), span=THIRD,
            )
        )
        .with_panel(
            lines(
                "Cost per hour, by model", "Dollars per hour at the current rate.",
                Query(f"sum by (model) (rate(tallystream_exporter_cost_usd_total{{{CHOSEN}}}[$__rate_interval])) * 3600", "{{model}}"),
                unit=USD, stacked=True,
            )
        )
        .with_panel(
            lines(
                "This hour and its history", "The current UTC hour so far, and the mean and maximum of the same hour in the last 14 days.",
                Query('max(tallystream_exporter_hour_cost_usd{hour="current"})', "this hour"),
                Query('max(tallystream_exporter_hour_history_mean_usd{hour="current"})', "mean"),
                Query('max(tallystream_exporter_hour_history_max_usd{hour="current"})', "highest"),
                unit=USD,
            )
        )
        .with_row(dashboard.Row("By model, connection and team, in the selected range"))
        .with_panel(
            bars("Cost by model", "", Query(f"sort_desc({range_of('tallystream_exporter_cost_usd_total', 'model')})", "{{model}}"), unit=USD)
        )
        .with_panel(
            bars(
                "Cost by connection", "Connections are shown by name and id.",
                Query(f"sort_desc({_named(range_of('tallystream_exporter_cost_usd_total', 'connection'))})", "{{name}} {{connection}}"), unit=USD,
            )
        )
        .with_panel(
            bars(
                "Cost by team", "`none` stands for clients that do not name a team. The selection of connection, client and model does not apply.",
                Query(f"sort_desc({spent('tallystream_exporter_team_cost_usd_total', 'team', **teams)})", "{{team}}"), unit=USD,
            )
        )
        .with_panel(
            bars(
                "Cost by agent", "The subagent, or what the program calls itself. Whatever connection, client or model is chosen.",
                Query(f"sort_desc({spent('tallystream_exporter_agent_cost_usd_total', 'agent', labels='', within='agent')})", "{{agent}}"), unit=USD, span=FULL // 2,
            )
        )
        .with_panel(
            bars(
                "Cost by who pays", "`plan`: a subscription pays, and this is what the API would have charged, part of no bill. `none`: the client does not tell.",
                Query(f"sort_desc({spent('tallystream_exporter_billing_cost_usd_total', 'billing', labels='', within='billing')})", "{{billing}}"), unit=USD, span=FULL // 2,
            )
        )
        .with_panel(
            grid(
                "Models", "Cost, tokens and requests.",
                Query(range_of("tallystream_exporter_cost_usd_total", "model"), "cost"),
                Query(range_of("tallystream_exporter_tokens_total", "model"), "tokens"),
                Query(range_of("tallystream_exporter_requests_total", "model"), "requests"),
                Query(range_of("tallystream_exporter_requests_without_price_total", "model"), "without a price"),
                by="model", sort="cost", units={"cost": USD},
            )
        )
        .with_panel(
            grid(
                "Teams", "Cost, tokens and requests. The selection of connection, client and model does not apply.",
                Query(spent("tallystream_exporter_team_cost_usd_total", "team", **teams), "cost"),
                Query(spent("tallystream_exporter_team_tokens_total", "team", **teams), "tokens"),
                Query(spent("tallystream_exporter_team_requests_total", "team", **teams), "requests"),
                by="team", sort="cost", units={"cost": USD},
            )
        )
        .with_row(dashboard.Row("Connections and kinds of tokens"))
        .with_panel(
            grid(
                "Connections", "Time since each active connection last sent usage, and its cost in the current hour.",
                Query('max by (connection, name, provider) (tallystream_exporter_connection_info{status="active"})'),
                Query('time() - max by (connection) (tallystream_exporter_connection_last_synced_timestamp_seconds{signal="logs"})', "last usage ago"),
                Query(
                    "max by (connection) (tallystream_exporter_connection_hour_cost_usd)"
                    ' or 0 * max by (connection) (tallystream_exporter_connection_info{status="active"})',
                    "this hour",
                ),
                by="connection", sort="this hour", units={"last usage ago": "s", "this hour": USD}, span=FULL - THIRD,
            )
        )
        .with_panel(
            bars("Tokens by kind", "The kinds do not overlap.", Query(f"sort_desc({range_of('tallystream_exporter_tokens_total', 'kind')})", "{{kind}}"), span=THIRD)
        )
        .with_panel(
            grid(
                "Coverage", "Of the last day: tokens counted, tokens that the client's metrics or spans tell of, and those of them that were not counted.",
                Query(_covered("counted"), "counted"),
                Query(_covered("witnessed"), "witnessed"),
                Query(_covered("missing"), "missing"),
                by="connection", sort="missing", units={}, span=FULL,
            )
        )
    )  # fmt: skip


def _covered(what: str) -> str:
    return f"sum by (connection) (max by (connection, client) (tallystream_ledger_coverage_{what}_tokens))"


def _cached() -> str:
    def tokens(kinds: str) -> str:
        metric = "tallystream_exporter_tokens_total"
        return spent(metric, labels=f'{CHOSEN},kind=~"{kinds}"', within="connection, client, model, kind")

    return f"{tokens('cache_read')} / ({tokens('input_uncached|cache_read|cache_write_5m|cache_write_1h')} > 0)"


def _named(by_connection: str) -> str:
    """Add connection names to values by connection; a connection that was removed from the registry has no name."""
    names = "max by (connection, name) (tallystream_exporter_connection_info)"
    return f"{by_connection} * on (connection) group_left (name) {names} or on (connection) {by_connection}"
