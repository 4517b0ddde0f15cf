"""Bills: what providers charge, what we estimated, and why they differ, for each account's newest complete day.

All pollers show the same statements, so `max` avoids counting a series twice when several are scraped.
"""

from __future__ import annotations

from deploy.grafana.code.panels import HALF, USD, Query, board, choice, grid, lines, number
from grafana_foundation_sdk.builders import dashboard

CHOSEN = 'provider=~"$provider",scope=~"$scope"'
DAY = 86_400
UNEXPLAINED, COVERED, BOOK_OFF = 0.05, 0.95, 0.01
"""The thresholds of the alerts TallystreamBillUnexplained, TallystreamCoverageLow and TallystreamPriceBookWrong."""


def said(what: str, *further: str) -> str:
    """Return a gauge of the reconciliation by account, each series once."""
    by = ", ".join(("provider", "scope", *further))
    return f"max by ({by}) (tallystream_poller_reconciliation_{what}{{{CHOSEN}}})"


def account(expr: str) -> str:
    """Return a series for each account, named like `openai all`."""
    return f'label_join({expr}, "account", " ", "provider", "scope")'


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    on = (
        board("tallystream-bills", "Bills", "Why the providers' bills and our estimates differ.", since="now-30d")
        .with_variable(
            choice("provider", "Provider", "label_values(tallystream_poller_reconciliation_bill_usd, provider)")
        )
        .with_variable(choice("scope", "Account", "label_values(tallystream_poller_reconciliation_bill_usd, scope)"))
    )
    return _over_time(_newest(on))


def _newest(on: dashboard.Dashboard) -> dashboard.Dashboard:
    residual = f"sum({said('residual_ratio')} * {said('bill_usd')}) / sum({said('bill_usd')} > 0)"
    return (
        on.with_row(dashboard.Row("Newest complete day of each account"))
        .with_panel(number("Bill", "The providers' bills.", f"sum({said('bill_usd')})", unit=USD, decimals=2))
        .with_panel(
            number("Difference", "Bill minus our estimate.", f"sum({said('difference_usd')})", unit=USD, decimals=2)
        )
        .with_panel(
            number(
                "Unexplained", "Tokens that are only on the bill or only in telemetry, as a share of the bill.", residual,
                unit="percentunit", decimals=1, limits=[(UNEXPLAINED, "red")],
            )
        )
        .with_panel(
            number(
                "Coverage", "Seen tokens divided by billed tokens, for the account with the lowest value.",
                f"min({said('coverage_ratio')})", unit="percentunit", decimals=1,
            )
        )
        .with_panel(
            number(
                "Price book error", "Share of the bill by which the price book differs, for the account with the highest value.",
                f"max({said('book_price_ratio')})", unit="percentunit", decimals=1, limits=[(BOOK_OFF, "orange")],
            )
        )
        .with_panel(
            number(
                "Age of the oldest day", "Time since the end of the oldest of these days.",
                f"time() - {DAY} - min({said('newest_day_timestamp_seconds')})", unit="s", limits=[(3 * DAY, "orange")],
            )
        )
        .with_panel(
            grid(
                "Causes", "The parts of the difference, which add up to exactly the difference.",
                Query(f"sum by (cause) ({said('cause_usd', 'cause')})", "Dollars"),
                by="cause", sort="Dollars", units={"Dollars": USD},
            )
        )
        .with_panel(
            grid(
                "Accounts", "By provider and account scope.",
                Query(f"sum by (account) ({account(said('bill_usd'))})", "Bill"),
                Query(f"sum by (account) ({account(said('difference_usd'))})", "Difference"),
                Query(f"sum by (account) ({account(said('coverage_ratio'))})", "Coverage"),
                by="account", sort="Bill", units={"Bill": USD, "Difference": USD, "Coverage": "percentunit"},
            )
        )
    )  # fmt: skip


def _over_time(on: dashboard.Dashboard) -> dashboard.Dashboard:
    bill, difference = said("bill_usd"), said("difference_usd")
    return (
        on.with_row(dashboard.Row("Day by day"))
        .with_panel(
            lines(
                "Bill and estimate", "The newest complete day at each time.",
                Query(f"sum by (provider) ({bill})", "{{provider}} bill"),
                Query(f"sum by (provider) ({bill} - {difference})", "{{provider}} estimate"), unit=USD, beside=True,
            )
        )
        .with_panel(
            lines(
                "Difference by cause", "docs/reconciliation.md explains each cause and what to do about it.",
                Query(f"sum by (cause) ({said('cause_usd', 'cause')})", "{{cause}}"), unit=USD, beside=True, signed=True,
            )
        )
        .with_panel(
            lines(
                "Unexplained and wrong prices", "Shares of the bill. An alert fires above the lines.",
                Query(account(said("residual_ratio")), "{{account}} unexplained"),
                Query(account(said("book_price_ratio")), "{{account}} price book"),
                Query(f"vector({UNEXPLAINED})", "alert"), unit="percentunit", span=HALF, beside=True,
            )
        )
        .with_panel(
            lines(
                "Coverage by account", "Seen tokens divided by billed tokens. An alert fires below the line.",
                Query(account(said("coverage_ratio")), "{{account}}"), Query(f"vector({COVERED})", "alert"),
                unit="percentunit", span=HALF, beside=True,
            )
        )
        .with_panel(
            lines(
                "Statements by state", "A day is open, then provisional, then settled. A partial day lacks an answer.",
                Query('max by (provider, state) (tallystream_poller_reconciliation_statements{provider=~"$provider"})',
                      "{{provider}} {{state}}"), beside=True,
            )
        )
    )  # fmt: skip
