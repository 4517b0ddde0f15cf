"""Checks that all components of this machine run and are healthy."""

from __future__ import annotations

from tallystream.doctor.model import Check, DoctorContext, Finding
from tallystream.schemas.errors import UnreachableError
from tallystream.schemas.status import SinkStatus
from tallystream.supervisor.status import ComponentStatus, collect


async def look(context: DoctorContext) -> list[Finding]:
    """Check the health of each component that `up` runs."""
    if context.run is None:
        return []
    try:
        status = await collect(context.data_dir)
    except UnreachableError as exc:
        return [Finding("component", exc.message, exc.hint)]
    log = context.data_dir / "logs"
    return [
        Finding(
            "component",
            f"{one.name} (pid {one.pid}) is {one.state}",
            f"its log: {log / one.name}.log; a component that stays unhealthy for 20 s is restarted by `up`",
        )
        for one in status.components
        if not one.ready and not _told(one)
    ]


def _told(one: ComponentStatus) -> bool:
    """Tell whether the check of Port names what keeps a sink from being ready."""
    detail = one.report.detail if one.report is not None else None
    return one.healthy and isinstance(detail, SinkStatus) and bool(detail.problem or detail.missing_blueprints)


CHECK = Check("component", look)
