"""Which spool file is whose: numbered slots of a prefix in one directory, each owned through an flock on its `.lock`.

The lock dies with its process, whatever kills it. A file is `spool-PREFIX-NUMBER.db` (version 0.1: `spool-NUMBER.db`).
What is set aside is renamed, never deleted: `NAME.aside-TIME`, or `NAME.recovered-TIME` once its rows are back.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

from tallystream.streams.identity import ASIDE
from tallystream.streams.service.locks import ProcessLock

MAX_SLOTS = 1024
RECOVERED = ".recovered-"
_SIDES = ("-wal", "-shm", "")
"""SQLite's own files beside a database; the database last, so that a rename cut short leaves the pair findable."""


class Slot:
    """One spool file's place. Use `Slot.take`; `release` gives the lock back."""

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
        # While it is held: filelock takes no lock on a file that was unlinked between opening and locking it.
        self._lock.path.unlink(missing_ok=True)
        self.release()

    def set_aside(self) -> Path:
        """Rename the spool file with what SQLite keeps beside it; the slot is empty then, and still ours.

        Raises:
            OSError: it cannot be renamed.

        """
        return rename(self.path, ASIDE)

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()


def rename(path: Path, mark: str) -> Path:
    """Give a spool file a name with a mark and the time.

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
    """Return the spool files of a directory, whosever they are."""
    return sorted(directory.glob("spool-*.db"))


def damaged(directory: Path) -> list[Path]:
    """Return the spool files that were set aside and not recovered since; `.unreadable-` is version 0.1's word."""
    found = {*directory.glob(f"spool-*.db{ASIDE}*"), *directory.glob("spool-*.unreadable-*")}
    return sorted(one for one in found if not one.name.endswith(("-wal", "-shm")) and RECOVERED not in one.name)
