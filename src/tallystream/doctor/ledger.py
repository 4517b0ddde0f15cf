"""Checks that the ledger keeps up and reads every record."""

from __future__ import annotations

from tallystream.doctor.model import Check, DoctorContext, Finding
from tallystream.doctor.reports import details
from tallystream.schemas.status import LedgerStatus

MANY: int = 100_000
"""Records behind the topics from which on it is reported; a few are on their way at any time."""


async def look(context: DoctorContext) -> list[Finding]:
    """Check the status of each ledger."""
    return [finding for status in await details(context, LedgerStatus) for finding in judge(status)]


def judge(status: LedgerStatus) -> list[Finding]:
    """Return the problems of a ledger. Pure."""
    found = []
    if status.active and not status.caught_up and status.behind > MANY:
        found.append(
            Finding(
                "ledger",
                f"the ledger still has {status.behind:,} records to read; until then `cost` reads the topics instead,"
                " and the console shows older figures",
                "wait: it reads tens of thousands a second; if the number does not fall, its log says why",
            )
        )
    if status.unreadable:
        found.append(
            Finding(
                "ledger",
                f"the ledger could not read {status.unreadable:,} records; they are missing in SQL and in the console",
                '`cost --from-topics` shows everything; `tallystream sql "select * from unreadable"` has the reasons',
            )
        )
    return found


CHECK = Check("ledger", look)
