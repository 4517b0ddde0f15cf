"""Checks that gateways deliver what they accept, and do not fill their spools."""

from __future__ import annotations

from tallystream.doctor.model import Check, DoctorContext, Finding
from tallystream.schemas.errors import UnreachableError
from tallystream.schemas.status import GatewayStatus
from tallystream.supervisor.ops_client import read_report

NEARLY_FULL = 0.5


async def look(context: DoctorContext) -> list[Finding]:
    """Check the status of each gateway."""
    found: list[Finding] = []
    for name, url in context.gateway_urls.items():
        try:
            report = await read_report(url)
        except UnreachableError as exc:
            found.append(Finding("gateway", f"{name} at {url} {exc.message}", exc.hint))
            continue
        if isinstance(report.detail, GatewayStatus):
            found += judge(name, report.detail, context.lateness.total_seconds())
    return found


def judge(name: str, status: GatewayStatus, lateness: float) -> list[Finding]:
    """Return the problems of what a gateway holds. Pure; `lateness` is in seconds."""
    found = _files(name, status)
    messages, size, limit = status.spool_messages, status.spool_bytes, status.spool_max_bytes
    if messages and not status.kafka_live:
        found.append(
            Finding(
                "spool",
                f"{name} spools because Kafka does not acknowledge: {messages:,} messages,"
                f" {size / 1e6:,.1f} MB of {limit / 1e6:,.0f} MB",
                "nothing is lost while the spool has room; once Kafka is back, it drains by itself",
            )
        )
    if size > NEARLY_FULL * limit:
        found.append(
            Finding(
                "spool",
                f"{name}'s spool is {size / limit:.0%} full; when it is full, requests get 503",
                "bring Kafka back, or raise TALLYSTREAM_SPOOL_MAX_BYTES if the disk has room",
            )
        )
    age = status.spool_oldest_age_seconds
    if age > lateness / 2:
        found.append(
            Finding(
                "spool",
                f"{name}'s oldest spooled message is {age / 3600:,.0f} h old: beyond the lateness of"
                f" {lateness / 3600:,.0f} h it becomes a dead letter and is not counted",
                "bring Kafka back, or raise TALLYSTREAM_LATENESS of all workers before it drains",
            )
        )
    if waiting := status.quarantine_requests:
        found.append(
            Finding(
                "spool",
                f"{name} holds {waiting:,} requests of connections it does not know yet",
                "they are checked when Kafka answers; a gateway knows connections only after it has reached Kafka once",
            )
        )
    return found


def _files(name: str, status: GatewayStatus) -> list[Finding]:
    """Return the problems of the spool's files."""
    found = []
    if not status.spool_writable:
        found.append(
            Finding(
                "spool",
                f"{name} cannot write a spool: requests that Kafka does not acknowledge at once get 503",
                "free or repair the disk of its data dir; its log says what is wrong (spool_unavailable)",
            )
        )
    if unopened := status.spool_files_unopened:
        found.append(
            Finding(
                "spool",
                f"{name} cannot open {unopened:,} spool files of this deployment; it tries again every 30 s",
                "is one locked (a backup), or written by a newer version? Its log says why (spool_not_opened)",
            )
        )
    if damaged := status.spool_files_damaged:
        found.append(
            Finding(
                "spool",
                f"{name} has set {damaged:,} damaged spool files aside; their readable messages are counted",
                "`tallystream spool list` shows them, `tallystream spool recover FILE` tries to recover the rest",
            )
        )
    if foreign := status.spool_foreign_messages:
        found.append(
            Finding(
                "spool",
                f"{name}'s spool directory holds {foreign:,} messages of another prefix or cluster",
                "a gateway of that deployment sends them; `tallystream spool recover FILE` brings them here instead",
            )
        )
    if status.topics_unfit:
        found.append(
            Finding(
                "spool",
                f"{name} spools everything because a topic has wrong settings",
                "correct the topics as described; the gateway continues as soon as they are right",
            )
        )
    elif (away := status.partitions_away) and status.kafka_live:
        found.append(
            Finding(
                "spool",
                f"{name} spools the messages of {away:,} partitions that do not acknowledge; the others work",
                "bring back the brokers that hold them, or enough replicas in sync",
            )
        )
    return found


CHECK = Check("spool", look)
