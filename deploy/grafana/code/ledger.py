"""The ledger's dashboard: the exact rows by SQL, for ranges and dimensions that metrics do not have.

It needs the ledger in PostgreSQL and a data source of Grafana for it (docs/ledger.md), so it is not in the folder that
is provisioned everywhere. The tables are in the schema named after the deployment's prefix.
"""

from __future__ import annotations

from deploy.grafana.code.panels import (
    FULL,
    HALF,
    THIRD,
    USD,
    Sql,
    bars,
    board,
    ledger,
    lines,
    number,
    rows,
)
from grafana_foundation_sdk.builders import dashboard


def total(figure: str) -> Sql:
    """Return one figure of the range shown."""
    return Sql("SELECT $figure AS value FROM ${prefix}.hours WHERE $__timeFilter(hour)".replace("$figure", figure))


def by(column: str) -> Sql:
    """Return dollars by a column, the largest first."""
    text = (
        "SELECT coalesce($column, 'none') AS metric, sum(cost_usd)::float8 AS value FROM ${prefix}.session_hours"
        " WHERE $__timeFilter(hour) GROUP BY 1 HAVING sum(cost_usd) > 0 ORDER BY 2 DESC LIMIT 15"
    )
    return Sql(text.replace("$column", column))


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    return (
        board("tallystream-ledger", "Ledger", "The exact rows, by SQL from the ledger.", since="now-7d", reads=ledger())
        .with_variable(dashboard.TextBoxVariable("prefix").label("Prefix").default_value("tallystream"))
        .with_row(dashboard.Row("In the range shown"))
        .with_panel(
            number("Cost", "Of all requests with a price.", total("sum(cost_usd)::float8"), unit=USD, decimals=2)
        )
        .with_panel(number("Tokens", "Of all kinds.", total("sum(total_tokens)::float8")))
        .with_panel(number("Requests", "Billed model responses.", total("sum(requests)::float8")))
        .with_panel(
            number(
                "Without a price", "Requests whose model the price book does not know; the cost leaves them out.",
                total("sum(unpriced_requests)::float8"), limits=[(1, "orange")],
            )
        )
        .with_panel(
            number(
                "Late", "Events that were counted after their hour had ended for longer than usual.",
                total("sum(late_events)::float8"),
            )
        )
        .with_panel(
            number(
                "Sessions", "Sessions with a request in the range.",
                Sql("SELECT count(DISTINCT (connection_id, session_id)) AS value FROM ${prefix}.session_hours WHERE $__timeFilter(hour)"),
            )
        )
        .with_panel(
            lines(
                "Cost an hour, by model", "Dollars by the hour of the event.",
                Sql(
                    "SELECT hour AS time, model AS metric, sum(cost_usd)::float8 AS value FROM ${prefix}.hours"
                    " WHERE $__timeFilter(hour) GROUP BY 1, 2 ORDER BY 1",
                    series=True,
                ),
                unit=USD, stacked=True, span=FULL,
            )
        )
        .with_row(dashboard.Row("Whose"))
        .with_panel(bars("Cost by team", "The 15 dearest; `none`: the client names no team.", by("team"), unit=USD))
        .with_panel(bars("Cost by repository", "The 15 dearest.", by("repo"), unit=USD))
        .with_panel(bars("Cost by agent", "The 15 dearest.", by("agent"), unit=USD))
        .with_panel(
            rows(
                "Dearest sessions", "The 50 sessions that cost most in the range.",
                Sql(
                    "SELECT connection_id AS connection, session_id AS session, sum(cost_usd)::float8 AS cost,"
                    " sum(requests)::float8 AS requests, sum(total_tokens)::float8 AS tokens FROM ${prefix}.session_hours"
                    " WHERE $__timeFilter(hour) GROUP BY 1, 2 ORDER BY 3 DESC NULLS LAST LIMIT 50"
                ),
                units={"cost": USD}, span=HALF,
            )
        )
        .with_panel(
            rows(
                "Models", "Cost, requests and tokens by model and tier.",
                Sql(
                    "SELECT provider, model, service_tier AS tier, sum(cost_usd)::float8 AS cost,"
                    " sum(requests)::float8 AS requests, sum(total_tokens)::float8 AS tokens FROM ${prefix}.hours"
                    " WHERE $__timeFilter(hour) GROUP BY 1, 2, 3 ORDER BY 4 DESC NULLS LAST"
                ),
                units={"cost": USD}, span=HALF,
            )
        )
        .with_row(dashboard.Row("Not counted, and billed"))
        .with_panel(
            rows(
                "Dead letters", "Records that were not counted, whatever range is shown.",
                Sql("SELECT reason, letters, newest FROM ${prefix}.dead_letter_reasons ORDER BY letters DESC"),
                units={}, span=THIRD,
            )
        )
        .with_panel(
            rows(
                "Billed by OpenAI", "Cost as reported by OpenAI, by UTC day and project.",
                Sql(
                    "SELECT day, project_id AS project, sum(usd)::float8 AS billed FROM ${prefix}.openai_billed_days"
                    " WHERE $__timeFilter(day::timestamp) GROUP BY 1, 2 ORDER BY 1 DESC, 3 DESC"
                ),
                units={"billed": USD}, span=FULL - THIRD,
            )
        )
    )  # fmt: skip
