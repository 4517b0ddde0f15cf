"""Lists a spool directory, and recovers files that gateways do not drain by themselves. Safe beside running
gateways.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tallystream.schemas.errors import UnfitError, UsageError
from tallystream.streams.gateway.errors import SpoolWriteError
from tallystream.streams.gateway.message import Message
from tallystream.streams.gateway.spool.file import SpoolFile
from tallystream.streams.gateway.spool.salvage import salvage
from tallystream.streams.gateway.spool.slots import MAX_SLOTS, RECOVERED, Slot, damaged, rename, slot_path, spools

State = Literal["ours", "in use", "foreign", "damaged", "unreadable"]


@dataclass(frozen=True)
class Listed:
    """A spool file. `messages` and `held` are None when they cannot be read."""

    path: Path
    state: State
    prefix: str
    cluster_id: str
    addresses: tuple[str, ...]
    """Where its cluster was to be reached, while its id is not known."""
    messages: int | None
    held: int
    bytes: int


@dataclass(frozen=True)
class RecoveredSpool:
    """The result of a recovery; `kept` is the file's new name."""

    messages: int
    held: int
    complete: bool
    kept: Path


def inventory(directory: Path, prefix: str) -> list[Listed]:
    """Return the spool files of a directory, including those set aside; read-only."""
    found = [_listed(path, prefix) for path in spools(directory)]
    for path in damaged(directory):
        saved = salvage(path)
        size = path.stat().st_size
        found.append(Listed(path, "damaged", "", "", (), len(saved.messages), len(saved.held), size))
    return found


def _listed(path: Path, prefix: str) -> Listed:
    slot = Slot.take(path)
    try:
        file = SpoolFile(path, patience=0.2)
    except SpoolWriteError:
        return Listed(path, "unreadable", "", "", (), None, 0, path.stat().st_size)
    else:
        ours = file.prefix == prefix or not file.prefix
        state: State = "in use" if slot is None else "ours" if ours else "foreign"
        level, held = file.level, file.quarantine_level
        file.close()
        addresses, size = tuple(sorted(file.addresses)), level.bytes + held.bytes
        return Listed(path, state, file.prefix, file.cluster_id, addresses, level.rows, held.rows, size)
    finally:
        if slot is not None:
            slot.release()


def recover(directory: Path, name: str, prefix: str, topics: frozenset[str]) -> RecoveredSpool:
    """Copy the readable rows of a file into a new spool of this deployment, and rename the file.

    `topics` are the full names of the topics that a gateway writes; a message of another prefix goes to the topic of
    the same name under this one.

    Raises:
        UsageError: the file does not exist.
        UnfitError: a gateway has it open, or the new spool cannot be written.

    """
    path = directory / name
    aside = path in damaged(directory)
    if not aside and path not in spools(directory):
        raise UsageError(f"{directory} does not contain a spool {name}", "`tallystream spool list` shows those it has")
    slot = None if aside else Slot.take(path)
    if not aside and slot is None:
        raise UnfitError(f"a gateway has {name} open", "the gateway drains it by itself; or stop that gateway first")
    try:
        found = salvage(path)
        messages = [(at, _here(message, prefix, topics)) for at, message in found.messages]
        _into_new(directory, prefix, lambda file: file.restore(messages, found.held))
        kept = rename(path, RECOVERED)
    except (SpoolWriteError, OSError) as exc:
        raise UnfitError(f"{name} was not recovered: {exc}", "nothing was lost; free space and try again") from exc
    finally:
        if slot is not None:
            slot.release()
    return RecoveredSpool(len(messages), len(found.held), found.complete, kept)


def _here(message: Message, prefix: str, topics: frozenset[str]) -> Message:
    if message.topic in topics:
        return message
    for topic in topics:
        own = topic.removeprefix(prefix)
        if message.topic.endswith(own):
            return message._replace(topic=topic)
    return message


def _into_new(directory: Path, prefix: str, fill: Callable[[SpoolFile], None]) -> None:
    """Create a spool that the gateways of this deployment find at their next look."""
    for number in range(MAX_SLOTS):
        path = slot_path(directory, prefix, number)
        if path.exists():
            continue
        slot = Slot.take(path)
        if slot is None:
            continue
        try:
            file = SpoolFile(path)
            try:
                file.belong(prefix, "")
                fill(file)
            finally:
                file.close()
        except BaseException:
            slot.remove()
            raise
        slot.release()
        return
    raise SpoolWriteError(f"all slots in {directory} are in use")
