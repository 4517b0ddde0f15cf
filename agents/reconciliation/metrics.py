"""Metrics of the reconciliation: each provider's newest days, by state, cause and account scope."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from tallystream.agents.reconciliation.split import CAUSES
from tallystream.schemas.reconciliation import ReconciledDay, State

MAX_SCOPES = 50
"""Maximum number of account scopes with their own label; further ones are `other`."""
STATES: tuple[State, ...] = ("open", "provisional", "settled", "partial")


class ReconciliationMetrics:
    """Gauges over the newest complete day (provisional or settled) of each provider and scope."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(what: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"tallystream_poller_reconciliation_{what}", text, labels, registry=registry)

        self.position = gauge(
            "position", "Sum of the source positions up to which the statements are complete; 0 while catching up."
        )
        self._days = gauge("statements", "Statements of a provider's days, by state.", "provider", "state")
        self._newest = gauge(
            "newest_day_timestamp_seconds", "Start of the newest day with a complete bill.", "provider", "scope"
        )
        self._bill = gauge("bill_usd", "Bill of that day.", "provider", "scope")
        self._difference = gauge("difference_usd", "Bill minus estimate of that day.", "provider", "scope")
        self._causes = gauge("cause_usd", "Part of that difference, by cause.", "provider", "scope", "cause")
        self._residual = gauge(
            "residual_ratio",
            "Share of that day's bill that is unseen (billed without telemetry) or overseen (the reverse).",
            "provider",
            "scope",
        )
        self._coverage = gauge(
            "coverage_ratio", "Seen tokens divided by billed tokens of that day.", "provider", "scope"
        )
        self._book = gauge(
            "book_price_ratio",
            "Share of that day's bill by which the price book differs from the prices charged.",
            "provider",
            "scope",
        )

    def show(self, statements: Iterable[Mapping[str, Any]]) -> None:
        """Show statements, all that are published."""
        newest: dict[tuple[str, str], Mapping[str, Any]] = {}
        states: dict[tuple[str, str], int] = {}
        for row in statements:
            states[row["provider"], row["state"]] = states.get((row["provider"], row["state"]), 0) + 1
            if row["causes"] is None or row["as_of"] is None or row["state"] not in ("provisional", "settled"):
                continue
            at = (row["provider"], row["scope"])
            if at not in newest or row["day"] > newest[at]["day"]:
                newest[at] = row
        for gauge in (self._days, self._newest, self._bill, self._difference, self._causes, self._residual,
                      self._coverage, self._book):  # fmt: skip
            gauge.clear()
        for (provider, state), count in states.items():
            self._days.labels(provider, state).set(count)
        for number, ((provider, scope), row) in enumerate(sorted(newest.items())):
            self._day(provider, scope if number < MAX_SCOPES else "other", row)

    def _day(self, provider: str, scope: str, row: Mapping[str, Any]) -> None:
        day = ReconciledDay.model_validate(row)
        causes = {name: Decimal(row["causes"][name]) for name in CAUSES}
        bill, seen, billed = Decimal(row["bill_usd"]), day.seen_tokens, day.billed_tokens or 0
        at = datetime.fromisoformat(day.day).replace(tzinfo=UTC)
        self._newest.labels(provider, scope).set(at.timestamp())
        self._bill.labels(provider, scope).set(float(bill))
        self._difference.labels(provider, scope).set(float(row["difference_usd"]))
        for name, value in causes.items():
            self._causes.labels(provider, scope, name).set(float(value))
        if bill > 0:
            self._residual.labels(provider, scope).set(float((causes["unseen"] - causes["overseen"]) / bill))
            self._book.labels(provider, scope).set(float(abs(causes["book_price"]) / bill))
        if billed > 0:
            self._coverage.labels(provider, scope).set(seen / billed)
