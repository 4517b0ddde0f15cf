"""What is wrong with a deployment, and what to do about it: checks that are all alike, each a module of its own.

A check looks and never touches: it creates no topic, joins no group, commits nothing.
"""

from __future__ import annotations

from tallystream.doctor import broker, clocks, disks, group, processes, spool, topics
from tallystream.doctor.model import Check, Context, Examination, Finding

CHECKS: tuple[Check, ...] = (
    processes.CHECK,
    disks.CHECK,
    spool.CHECK,
    broker.CHECK,
    topics.CHECK,
    group.CHECK,
    clocks.CHECK,
)
"""In the order in which they are made and shown."""

__all__ = ["CHECKS", "Check", "Context", "Examination", "Finding", "examine"]


async def examine(context: Context) -> Examination:
    """Make all checks; those that need Kafka are left out when it does not answer."""
    done = Examination()
    away = False
    for check in CHECKS:
        if check.needs_kafka and away:
            done.left_out.append(check.name)
            continue
        found = await check.look(context)
        done.made.append(check.name)
        done.findings += found
        away = away or (check is broker.CHECK and bool(found))
    return done
