"""Do gateways get rid of what they take?"""

from __future__ import annotations

from tallystream.doctor.model import Check, Context, Finding
from tallystream.schemas.errors import UnreachableError
from tallystream.schemas.status import GatewayStatus
from tallystream.supervisor.ops_client import read_report, session

NEARLY_FULL = 0.5


async def look(context: Context) -> list[Finding]:
    """Ask each gateway what it holds."""
    found: list[Finding] = []
    async with session() as http:
        for name, url in context.gateway_urls.items():
            try:
                report = await read_report(http, url)
            except UnreachableError as exc:
                found.append(Finding("gateway", f"{name} at {url} {exc.message}", exc.hint))
                continue
            if isinstance(report.detail, GatewayStatus):
                found += judge(name, report.detail, context.lateness.total_seconds())
    return found


def judge(name: str, status: GatewayStatus, lateness: float) -> list[Finding]:
    """Return what is wrong with what a gateway holds. Pure; `lateness` is in seconds."""
    found = []
    messages, size, limit = status.spool_messages, status.spool_bytes, status.spool_max_bytes
    if messages and not status.kafka_live:
        found.append(
            Finding(
                "spool",
                f"{name} spools because Kafka does not acknowledge: {messages:,} messages,"
                f" {size / 1e6:,.1f} MB of {limit / 1e6:,.0f} MB",
                "nothing is lost while it fits; bring Kafka back, the spool then drains by itself",
            )
        )
    if size > NEARLY_FULL * limit:
        found.append(
            Finding(
                "spool",
                f"{name}'s spool is {size / limit:.0%} full; when it is full, requests get 503",
                "bring Kafka back, or raise TALLYSTREAM_SPOOL_MAX_BYTES while there is disk",
            )
        )
    age = status.spool_oldest_age_seconds
    if age > lateness / 2:
        found.append(
            Finding(
                "spool",
                f"{name}'s oldest spooled message is {age / 3600:,.0f} h old: beyond the lateness of"
                f" {lateness / 3600:,.0f} h it will be a dead letter instead of a cost",
                "bring Kafka back, or raise TALLYSTREAM_LATENESS of all workers before it drains",
            )
        )
    if waiting := status.quarantine_requests:
        found.append(
            Finding(
                "spool",
                f"{name} holds {waiting:,} requests of connections it does not know yet",
                "they are judged when Kafka answers; a gateway that has never met Kafka knows no connection",
            )
        )
    return found


CHECK = Check("spool", look)
