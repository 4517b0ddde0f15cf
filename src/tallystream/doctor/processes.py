"""Checks that all components of this machine run and are healthy."""

from __future__ import annotations

from tallystream.doctor.model import Check, DoctorContext, Finding
from tallystream.schemas.errors import UnreachableError
from tallystream.supervisor.status import collect


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
        if not one.ready
    ]


CHECK = Check("component", look)
