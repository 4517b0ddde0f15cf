"""Checks for settings that have no effect."""

from __future__ import annotations

from tallystream.doctor.model import Check, DoctorContext, Finding
from tallystream.settings.ocean_ignored import ignored_settings


async def look(_context: DoctorContext) -> list[Finding]:
    """Name the variables of Ocean's container that are set here without effect."""
    return [Finding("settings", f"{one.name} has no effect", one.hint) for one in ignored_settings()]


CHECK = Check("settings", look)
