"""Do gateways get rid of what they take?"""

from __future__ import annotations

import re

import aiohttp

from tallystream.doctor.model import Check, Context, Finding

PREFIX = "tallystream_gateway_"
_SAMPLE = re.compile(rf"^{PREFIX}(\w+) (\S+)$", re.MULTILINE)
NEARLY_FULL = 0.5


async def look(context: Context) -> list[Finding]:
    """Read each gateway's gauges."""
    found: list[Finding] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
        for name, url in context.gateway_urls.items():
            try:
                async with http.get(f"{url}/metrics") as response:
                    gauges = {key: float(value) for key, value in _SAMPLE.findall(await response.text())}
            except (aiohttp.ClientError, TimeoutError, OSError):
                found.append(
                    Finding("gateway", f"{name} does not answer on {url}", "`tallystream status`; is it running?")
                )
                continue
            found += judge(name, gauges, context.lateness.total_seconds())
    return found


def judge(name: str, gauges: dict[str, float], lateness: float) -> list[Finding]:
    """Return what a gateway's gauges say is wrong. Pure; `lateness` is in seconds."""
    found = _files(name, gauges)
    messages, size = gauges.get("spool_messages", 0.0), gauges.get("spool_bytes", 0.0)
    limit = gauges.get("spool_max_bytes", float("inf"))
    if messages and not gauges.get("kafka_live", 0.0):
        found.append(
            Finding(
                "spool",
                f"{name} spools because Kafka does not acknowledge: {messages:,.0f} messages,"
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
    age = gauges.get("spool_oldest_age_seconds", 0.0)
    if age > lateness / 2:
        found.append(
            Finding(
                "spool",
                f"{name}'s oldest spooled message is {age / 3600:,.0f} h old: beyond the lateness of"
                f" {lateness / 3600:,.0f} h it will be a dead letter instead of a cost",
                "bring Kafka back, or raise TALLYSTREAM_LATENESS of all workers before it drains",
            )
        )
    if waiting := gauges.get("quarantine_requests", 0.0):
        found.append(
            Finding(
                "spool",
                f"{name} holds {waiting:,.0f} requests of connections it does not know yet",
                "they are judged when Kafka answers; a gateway that has never met Kafka knows no connection",
            )
        )
    return found


def _files(name: str, gauges: dict[str, float]) -> list[Finding]:
    """Return what is wrong with the spool's files themselves."""
    found = []
    if not gauges.get("spool_writable", 1.0):
        found.append(
            Finding(
                "spool",
                f"{name} has no spool it can write: what Kafka does not take at once is answered 503",
                "free or repair the disk of its data dir; its log says what is wrong (spool_unavailable)",
            )
        )
    if unopened := gauges.get("spool_files_unopened", 0.0):
        found.append(
            Finding(
                "spool",
                f"{name} cannot open {unopened:,.0f} spool files of this deployment; it tries again every 30 s",
                "is one locked (a backup), or written by a newer version? Its log says why (spool_not_opened)",
            )
        )
    if damaged := gauges.get("spool_files_damaged", 0.0):
        found.append(
            Finding(
                "spool",
                f"{name} has set {damaged:,.0f} damaged spool files aside; what could be read of them is counted",
                "`tallystream spool list` shows them, `tallystream spool recover FILE` tries again and settles them",
            )
        )
    if foreign := gauges.get("spool_foreign_messages", 0.0):
        found.append(
            Finding(
                "spool",
                f"{name}'s spool directory holds {foreign:,.0f} messages of another prefix or cluster",
                "a gateway of that deployment sends them; `tallystream spool recover FILE` brings them here instead",
            )
        )
    if gauges.get("topics_unfit", 0.0):
        found.append(
            Finding(
                "spool",
                f"{name} spools everything because the cluster's topics do not fit",
                "see what is said of the topics; it goes on as soon as they are mended",
            )
        )
    elif (away := gauges.get("partitions_away", 0.0)) and gauges.get("kafka_live", 0.0):
        found.append(
            Finding(
                "spool",
                f"{name} spools what belongs to {away:,.0f} partitions that do not acknowledge; the others go on",
                "bring back the brokers that hold them, or enough replicas in sync",
            )
        )
    return found


CHECK = Check("spool", look)
