"""Makes all checks."""

from __future__ import annotations

import asyncio

from tallystream.doctor import (
    broker,
    clocks,
    coverage,
    disks,
    group,
    ledger,
    names,
    openai,
    port,
    processes,
    spool,
    topics,
)
from tallystream.doctor.model import Check, DoctorContext, Examination, Finding

CHECKS: tuple[Check, ...] = (
    processes.CHECK,
    names.CHECK,
    openai.CHECK,
    port.CHECK,
    disks.CHECK,
    spool.CHECK,
    ledger.CHECK,
    coverage.CHECK,
    broker.CHECK,
    topics.CHECK,
    group.CHECK,
    clocks.CHECK,
)
"""The checks, in the order in which they are made and shown."""


async def examine(context: DoctorContext) -> Examination:
    """Make all checks, concurrently where possible. Those that need Kafka are made only if it answers."""
    done = Examination()
    found: dict[str, list[Finding]] = {}
    for needs_kafka in (False, True):
        checks = [check for check in CHECKS if check.needs_kafka is needs_kafka]
        if needs_kafka and found[broker.CHECK.name]:
            done.left_out = [check.name for check in checks]
            break
        looked = await asyncio.gather(*(check.look(context) for check in checks))
        found |= dict(zip((check.name for check in checks), looked, strict=True))
    for check in CHECKS:
        if check.describe is not None and (section := await check.describe(context)) is not None:
            done.sections.append(section)
        if check.name in found:
            done.made.append(check.name)
            done.findings += found[check.name]
    return done
