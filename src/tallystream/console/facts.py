"""What the page of health says of a process: how far behind it is, what waits in it, how fresh its numbers are."""

from __future__ import annotations

from tallystream.console.format import number
from tallystream.schemas.status import (
    Detail,
    ExporterStatus,
    GatewayStatus,
    LedgerStatus,
    PollerStatus,
    SinkStatus,
    WorkerStatus,
)


def facts_of(detail: Detail | None) -> dict[str, str]:
    """Return facts by name, in words."""
    match detail:
        case GatewayStatus():
            spool = f"{number(detail.spool_messages)} messages, {number(detail.spool_bytes)} bytes"
            if detail.spool_messages:
                spool += f", the oldest {detail.spool_oldest_age_seconds:.0f} s old"
            return {"spool": spool, "Kafka": "answers" if detail.kafka_live else "does not answer"}
        case WorkerStatus():
            lag = sum(max(0, one.end - one.applied) for one in detail.partitions if one.end is not None)
            return {"lag": f"{number(lag)} messages", "partitions": number(len(detail.partitions))}
        case ExporterStatus():
            return {"metrics": "caught up" if detail.caught_up else "catching up"}
        case LedgerStatus():
            return {"lag": f"{number(detail.behind)} records"}
        case PollerStatus():
            fresh = max((one.last_success_at for one in detail.resources if one.last_success_at), default=None)
            failing = sum(one.reason is not None for one in detail.resources)
            newest = f"{fresh:%Y-%m-%d %H:%M}" if fresh else "none yet"
            return {"newest answer": newest, "failing": f"{failing} of {len(detail.resources)} resources"}
        case SinkStatus():
            backlog = f"{number(detail.backlog_entities)} entities, {detail.behind_seconds:.0f} s behind"
            return {"backlog": backlog} | ({"problem": detail.problem} if detail.problem else {})
        case _:
            return {}
