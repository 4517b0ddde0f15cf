"""Which spool file is whose: numbered slots in one directory, each owned through an flock on its `.lock` file.

The lock dies with its process, whatever kills it. A starting gateway takes the lowest free slot (so a restarted one
finds its own spool again) and adopts the spools of the other slots that nobody holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tallystream.schemas.errors import UnfitError
from tallystream.streams.service.locks import ProcessLock

MAX_SLOTS = 1024


class Slot:
    """One spool file's place. Use `Slot.take`; `release` gives the lock back."""

    def __init__(self, directory: Path, number: int, lock: ProcessLock) -> None:
        self.number = number
        self.path = _path(directory, number, "db")
        self._lock = lock

    @classmethod
    def take(cls, directory: Path, number: int) -> Slot | None:
        """Lock the slot, or return None when a live process holds it."""
        lock = ProcessLock(_path(directory, number, "lock"))
        return cls(directory, number, lock) if lock.acquire() else None

    @classmethod
    def take_lowest(cls, directory: Path) -> Slot:
        """Lock the lowest slot that no live process holds.

        Raises:
            UnfitError: the directory cannot be used, or all slots are held.

        """
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for number in range(MAX_SLOTS):
                if slot := cls.take(directory, number):
                    return slot
        except OSError as exc:
            raise UnfitError(
                f"the spool directory {directory} cannot be used: {exc}",
                "it must be writable and on a file system with locks: set TALLYSTREAM_DATA_DIR",
            ) from exc
        raise UnfitError(
            f"{MAX_SLOTS} gateways share the spool directory {directory}", "give some another data directory"
        )

    @classmethod
    def abandoned(cls, directory: Path, but: Slot) -> Iterator[Slot]:
        """Lock and yield, one after the other, the slots with a spool file that no live process holds."""
        for path in sorted(directory.glob("spool-*.db")):
            with contextlib.suppress(ValueError):
                number = int(path.stem.removeprefix("spool-"))
                if number != but.number and (slot := cls.take(directory, number)):
                    yield slot

    def remove(self) -> None:
        """Delete the spool file and its lock; the slot is free."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        # While it is held: filelock takes no lock on a file that was unlinked between opening and locking it.
        self._lock.path.unlink(missing_ok=True)
        self.release()

    def set_aside(self, mark: str) -> Path:
        """Rename a spool file that SQLite cannot read, so that a person can rescue what is in it."""
        aside = self.path.with_suffix(f".unreadable-{mark}")
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
        return aside

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()


def _path(directory: Path, number: int, kind: str) -> Path:
    return directory / f"spool-{number}.{kind}"
