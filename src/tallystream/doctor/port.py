"""Checks the sink's state: credentials, blueprints, mapping, rate, backlog."""

from __future__ import annotations

from tallystream.doctor.model import Check, DoctorContext, Finding, Section
from tallystream.doctor.reports import details
from tallystream.schemas.status import SinkStatus

LATE = 600.0
"""Delay in seconds from which it is reported."""


async def look(context: DoctorContext) -> list[Finding]:
    """Report the problems of the sink."""
    return [finding for status in await details(context, SinkStatus) for finding in judge(status)]


def judge(status: SinkStatus) -> list[Finding]:
    """Return the problems of a sink. Pure."""
    found = []
    if status.problem is not None:
        found.append(Finding("port", status.problem, status.next_step or "the sink tries again by itself"))
    for kind, missing in status.missing_blueprints.items():
        found.append(
            Finding(
                "port",
                f"{kind}: Port has no blueprint {', '.join(missing)}, so nothing is written to it",
                "`tallystream port blueprints apply` creates ours, `... apply FILE` your own",
            )
        )
    if status.unmatched_kinds:
        found.append(
            Finding(
                "port",
                f"the mapping makes nothing of any record of {', '.join(status.unmatched_kinds)}",
                "look at its query and itemsToParse: `tallystream port mapping test` shows what they give",
            )
        )
    if status.refused_entities or status.unmapped_records:
        found.append(
            Finding(
                "port",
                f"since the sink started, Port refused {status.refused_entities:,} entities, and"
                f" {status.unmapped_records:,} records could not be mapped",
                "`tallystream deadletters list` names each, with the reason",
            )
        )
    if status.not_registered is not None:
        found.append(
            Finding(
                "port",
                f"the sink is not registered as an integration in Port: {status.not_registered}",
                "entities are written nevertheless; TALLYSTREAM_PORT_IDENTIFIER names the integration, and"
                " TALLYSTREAM_PORT_REGISTER=false goes without",
            )
        )
    if status.problem is None and status.behind_seconds > LATE:
        found.append(
            Finding(
                "port",
                f"the oldest change that is not in Port is {status.behind_seconds / 60:,.0f} minutes old",
                "if tallystream_sink_throttled_requests_total grows, something else uses up the rate limit",
            )
        )
    return found


async def describe(context: DoctorContext) -> Section | None:
    """Return the section on the sink, None if `up` does not run here."""
    if context.run is None:
        return None
    statuses = await details(context, SinkStatus)
    if not statuses:
        unset = "no credentials are set: TALLYSTREAM_PORT_CLIENT_ID, TALLYSTREAM_PORT_CLIENT_SECRET"
        return Section("Port", [("not written", unset)])
    return Section("Port", [line for status in statuses for line in lines(status)])


def lines(status: SinkStatus) -> list[tuple[str, str]]:
    """Return what is known, by name. Pure."""
    backlog = (
        f"{status.backlog_documents:,} documents, {status.backlog_entities:,} entities"
        f" ({status.deferred_entities:,} wait for another attempt), {status.behind_seconds:,.0f} s behind"
    )
    done = (
        f"{status.written_entities:,} entities written, {status.refused_entities:,} refused,"
        f" {status.unmapped_records:,} records not mapped"
    )
    missing = sorted({name for names in status.missing_blueprints.values() for name in names})
    calls = "" if status.remaining_calls is None else f", {status.remaining_calls:,} calls left in the period"
    return [
        ("sink", "active" if status.active else "not writing"),
        ("Port", "reachable" if status.problem is None else status.problem),
        ("blueprints", f"missing: {', '.join(missing)}" if missing else "all there" if status.active else "unknown"),
        ("mapping", f"{len(status.kinds)} kinds: {', '.join(status.kinds)}"),
        ("pace", f"{status.requests_per_second:g} requests a second{calls}"),
        ("backlog", backlog),
        ("since start", done),
    ]


CHECK = Check("port", look, describe=describe)
