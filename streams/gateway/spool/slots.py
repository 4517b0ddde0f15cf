"""Ownership of spool files: numbered slots of a prefix in one directory, each owned through an flock on its `.lock`.

The lock ends with its process, even if the process is killed. A file is `spool-PREFIX-NUMBER.db` (version 0.1:
`spool-NUMBER.db`). Files that are set aside are renamed, never deleted: `NAME.aside-TIME`, or `NAME.recovered-TIME`
once its rows are back.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

from tallystream.streams.service.locks import ProcessLock
from tallystream.streams.set_aside import ASIDE

MAX_SLOTS = 1024
RECOVERED = ".recovered-"
_SIDES = ("-wal", "-shm", "")
"""SQLite's files beside a database. The database is renamed last, so that an interrupted rename can be resumed."""


class Slot:
    """The place of one spool file. `Slot.take` locks it; `release` unlocks it."""

    def __init__(self, path: Path, lock: ProcessLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def take(cls, path: Path) -> Slot | None:
        """Lock the slot of a spool file, which need not exist; None when a live process holds it.

        Raises:
            OSError: the directory cannot be used.

        """
        lock = ProcessLock(path.with_suffix(".lock"))
        return cls(path, lock) if lock.acquire() else None

    def remove(self) -> None:
        """Delete the spool file and its lock; the slot is free."""
        for side in _SIDES:
            Path(f"{self.path}{side}").unlink(missing_ok=True)
        # Unlink it while it is held: filelock refuses a file that was unlinked between opening and locking it.
        self._lock.path.unlink(missing_ok=True)
        self.release()

    def set_aside(self) -> Path:
        """Rename the spool file with SQLite's files beside it; then the slot is empty and still ours.

        Raises:
            OSError: it cannot be renamed.

        """
        return rename(self.path, ASIDE)

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


def rename(path: Path, mark: str) -> Path:
    """Rename a spool file to a name with a mark and the time.

    Raises:
        OSError: it cannot be renamed.

    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    target = path.with_name(f"{path.name.partition(ASIDE)[0]}{mark}{stamp}")
    for side in _SIDES:
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{side}").rename(f"{target}{side}")
    return target


def slot_path(directory: Path, prefix: str, number: int) -> Path:
    """Return the spool file of a slot."""
    return directory / f"spool-{prefix}-{number}.db"


def spools(directory: Path) -> list[Path]:
    """Return the spool files of a directory, of all deployments."""
    return sorted(directory.glob("spool-*.db"))


def damaged(directory: Path) -> list[Path]:
    """Return the spool files that were set aside and not recovered since; version 0.1 named them `.unreadable-`."""
    found = {*directory.glob(f"spool-*.db{ASIDE}*"), *directory.glob("spool-*.unreadable-*")}
    return sorted(one for one in found if not one.name.endswith(("-wal", "-shm")) and RECOVERED not in one.name)
