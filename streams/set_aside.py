"""Sets aside local states that belong to another deployment: they are renamed, never deleted and never read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from tallystream.streams.identity import Identity

FILE = "identity.json"
"""Name of the identity file in a state that is a directory."""
ASIDE = ".aside-"
"""Marks the name of a state that was set aside; the time follows."""
log = structlog.get_logger()


def set_aside(state: Path, why: str, *, counted: Callable[[], None] = lambda: None) -> Path | None:
    """Rename a state (a file or a directory), so that it is no longer used; returns None when it does not exist.

    Logs it in one line and calls `counted`. The new name ends with the time; the identity's file beside a state that is
    a file goes with it. Nothing is deleted: `aside` lists these states.

    Raises:
        OSError: it cannot be renamed.

    """
    if not state.exists():
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    target = state.with_name(f"{state.name}{ASIDE}{stamp}")
    state.rename(target)
    beside = beside_of(state)
    if not target.is_dir() and beside.exists():
        beside.rename(beside_of(target))
    counted()
    log.warning("state_set_aside", state=str(state), moved_to=target.name, why=why)
    return target


def beside_of(state: Path) -> Path:
    """Return the path of the identity of a state that is a file."""
    return state.with_name(f"{state.name}.{FILE}")


def aside(directory: Path) -> list[Path]:
    """Return the states set aside in a directory, sorted by name; empty when the directory does not exist."""
    return sorted(one for one in directory.glob(f"*{ASIDE}*") if not one.name.endswith(f".{FILE}"))


def claim_directory(state: Path, identity: Identity, *, counted: Callable[[], None] = lambda: None) -> bool:
    """Claim a directory for this deployment before it is read; return whether its contents may be used.

    A directory with another identity, or with contents but without an identity, is set aside. Afterwards the directory
    exists and carries `identity`; if False is returned, it is empty and must be filled.

    Raises:
        OSError: it cannot be read, renamed or written.

    """
    found = Identity.load(state / FILE)
    usable = identity.matches(found)
    if not usable and state.is_dir() and any(state.iterdir()):
        set_aside(
            state, identity.difference(found) if found else "it does not name its cluster and prefix", counted=counted
        )
    if found != identity or not usable:
        identity.save(state / FILE)
    return usable
