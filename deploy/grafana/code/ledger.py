"""The ledger's dashboard: exact rows by SQL, for ranges and dimensions that the metrics do not have.

It needs the ledger in PostgreSQL and a Grafana data source for it (docs/ledger.md), so it is not in the folder that is
provisioned everywhere. The tables are in the schema named after the deployment's prefix.
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
    """Return one figure of the selected range."""
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
        board("tallystream-ledger", "Ledger", "The exact rows, queried from the ledger in SQL.", since="now-7d", reads=ledger())
        .with_variable(dashboard.TextBoxVariable("prefix").label("Prefix").default_value("tallystream"))
        .with_row(dashboard.Row("In the selected range"))
        .with_panel(
            number("Cost", "Cost of all requests with a price.", total("sum(cost_usd)::float8"), unit=USD, decimals=2)
        )
        .with_panel(number("Tokens", "Tokens of all kinds.", total("sum(total_tokens)::float8")))
        .with_panel(number("Requests", "Billed model responses.", total("sum(requests)::float8")))
        .with_panel(
            number(
                "Without a price", "Requests that the price book has no price for. The cost does not include them.",
                total("sum(unpriced_requests)::float8"), limits=[(1, "orange")],
            )
        )
        .with_panel(
            number(
                "Late", "Events that were counted after their hour was final, one hour after its end.",
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
                "Cost per hour, by model", "Dollars, by the hour of the event.",
                Sql(
                    "SELECT hour AS time, model AS metric, sum(cost_usd)::float8 AS value FROM ${prefix}.hours"
                    " WHERE $__timeFilter(hour) GROUP BY 1, 2 ORDER BY 1",
                    series=True,
                ),
                unit=USD, stacked=True, span=FULL,
            )
        )
        .with_row(dashboard.Row("By team, repository, agent, session and model"))
        .with_panel(bars("Cost by team", "The 15 most expensive. `none` stands for clients that do not name a team.", by("team"), unit=USD))
        .with_panel(bars("Cost by repository", "The 15 most expensive.", by("repo"), unit=USD))
        .with_panel(bars("Cost by agent", "The 15 most expensive.", by("agent"), unit=USD))
        .with_panel(
            rows(
                "Most expensive sessions", "The 50 most expensive sessions in the range.",
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
        .with_row(dashboard.Row("Dead letters and OpenAI's bill"))
        .with_panel(
            rows(
                "Dead letters", "Records that were not counted, regardless of the range.",
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
