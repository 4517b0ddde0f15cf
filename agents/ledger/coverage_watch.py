"""Compares the last day's counted and witnessed tokens now and then, for metrics, `/status` and `doctor`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from tallystream.agents.coverage import CoverageRow, coverage
from tallystream.agents.ledger.queries.coverage import CoverageRange, counted_hours, witnessed_hours
from tallystream.agents.ledger.store.database import Database
from tallystream.schemas.status import CoverageStatus

HOURS = 24
"""How far the comparison goes back."""
MAX_ROWS = 500
"""Maximum number of (connection, client); those with most missing first."""


class CoverageWatch:
    """The comparison of one ledger: `look` now and then, only while it has the topics' whole contents."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            labels = ("connection", "client")
            return Gauge(f"tallystream_ledger_coverage_{name}_tokens", text, labels, registry=registry)

        self._counted = gauge(
            "counted", f"Tokens counted in the last {HOURS} hours, of connections that have usage or witnesses."
        )
        self._witnessed = gauge(
            "witnessed",
            f"Tokens of the last {HOURS} hours that the client's metrics or spans tell of. They never cost anything; 0"
            " if the client sends only logs.",
        )
        self._missing = gauge(
            "missing",
            f"Tokens of the last {HOURS} hours that a witness saw and that were not counted: logs were lost or are"
            " switched off. `tallystream doctor` names the client's version and the setting.",
        )
        self.rows: list[CoverageRow] = []

    def look(self, database: Database, hour: int) -> None:
        """Compare the hours up to `hour`, the current one."""
        wanted = CoverageRange(hour - HOURS + 1, hour + 1, hourly=False)
        with database.reading():
            rows = coverage(counted_hours(database, wanted), witnessed_hours(database, wanted))
        self.forget()
        self.rows = rows[:MAX_ROWS]
        for row in self.rows:
            labels = (row.connection_id, row.client)
            self._counted.labels(*labels).set(row.counted.total)
            self._witnessed.labels(*labels).set(row.witnessed.total)
            self._missing.labels(*labels).set(row.missing)

    def forget(self) -> None:
        """Show nothing: another ledger writes now."""
        self.rows = []
        for gauge in (self._counted, self._witnessed, self._missing):
            gauge.clear()

    def status(self) -> list[CoverageStatus]:
        """Return the rows in which something is missing."""
        return [
            CoverageStatus(
                connection_id=row.connection_id,
                client=row.client,
                counted=row.counted.total,
                witnessed=row.witnessed.total,
                missing=row.missing,
                witness=row.witness or "",
                versions=list(row.versions),
            )
            for row in self.rows
            if row.missing
        ]
