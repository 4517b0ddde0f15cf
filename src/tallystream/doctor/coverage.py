"""Checks that what was counted covers what clients' metrics and spans tell of."""

from __future__ import annotations

from tallystream.doctor.model import Check, DoctorContext, Finding
from tallystream.doctor.reports import details
from tallystream.schemas.status import CoverageStatus, LedgerStatus

FEW = 10_000
"""Missing tokens up to which nothing is reported: metrics and logs of a turn do not arrive at the same time."""
TOLERATED = 20
"""One part in so many may be missing: 5%."""
SETTINGS = {
    "codex": "set `exporter` in [otel] of ~/.codex/config.toml, beside `trace_exporter` and `metrics_exporter`",
    "claude": "set OTEL_LOGS_EXPORTER=otlp where claude starts",
    "gemini": "point GEMINI_TELEMETRY_OTLP_ENDPOINT at the connection's base URL, without /v1/metrics",
    "qwen": "give `telemetry.otlpEndpoint` in ~/.qwen/settings.json the connection's base URL, without /v1/metrics",
}
"""The setting without which a client sends no logs."""


async def look(context: DoctorContext) -> list[Finding]:
    """Check what each ledger found when it compared the last day."""
    return [
        finding for status in await details(context, LedgerStatus) for row in status.coverage for finding in judge(row)
    ]


def judge(row: CoverageStatus) -> list[Finding]:
    """Return what is wrong with a connection's coverage. Pure."""
    if row.missing <= FEW or row.missing * TOLERATED <= row.counted + row.missing:
        return []
    client = " ".join([row.client, *row.versions[-1:]])
    if not row.counted:
        what = (
            f"the {row.witness} of {row.connection_id} ({client}) tell of {row.witnessed:,} tokens in the last day, and"
            " its logs of none, so nothing was counted"
        )
        step = SETTINGS.get(row.client, "switch its logs on")
        return [Finding("coverage", what, f"{step}; `tallystream connections create` prints a whole configuration")]
    share = row.counted * 100 // (row.counted + row.missing)
    what = (
        f"only {share}% of the known tokens of {row.connection_id} ({client}) were counted in the last day: its"
        f" {row.witness} tell of {row.missing:,} more"
    )
    step = (
        f"`tallystream coverage --by session --connection {row.connection_id}` shows where; update the client, and"
        " check that its logs are not refused (quota, bearer) or rejected (`tallystream deadletters list`)"
    )
    return [Finding("coverage", what, step)]


CHECK = Check("coverage", look)
