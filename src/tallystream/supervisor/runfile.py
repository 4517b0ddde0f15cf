"""DATA_DIR/run.json, and the lock that distinguishes a running supervisor from a killed one.

The supervisor's process holds an `flock` on DATA_DIR/up.lock. The kernel releases it however the process ends, so a
run.json without a held lock is stale. The lock file contains the supervisor's pid.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from tallystream.schemas.errors import UsageError
from tallystream.schemas.run import Run
from tallystream.streams.service import private_dir
from tallystream.streams.service.locks import ProcessLock, holder

RUN_FILE = "run.json"
LOCK_FILE = "up.lock"


class SupervisorLock:
    """The exclusive right to run in a data dir, as a context manager."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / LOCK_FILE
        self._lock = ProcessLock(self._path)

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            UsageError: another supervisor runs in this data dir, or the dir is not ours or cannot be written.

        """
        try:
            private_dir.claim(self._path.parent)
            # A reader that looks at the lock holds it for an instant: that is not a reason to give up.
            ours = self._lock.acquire(wait=1.0)
        except OSError as exc:
            raise UsageError(
                f"the data dir {self._path.parent} cannot be written: {exc.strerror}",
                "name another directory with --data-dir",
            ) from exc
        if not ours:
            raise UsageError(
                f"tallystream already runs in {self._path.parent} (process {holder(self._path)})",
                "`tallystream status` shows it, `tallystream down` stops it; --data-dir runs a second one",
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def owner(data_dir: Path) -> int | None:
    """Return the pid of the supervisor that runs in this data dir, or None."""
    return holder(data_dir / LOCK_FILE)


def write(data_dir: Path, run: Run) -> None:
    """Write run.json by rename, so that a reader never sees a partial file."""
    path = data_dir / RUN_FILE
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(run.model_dump_json(indent=2) + "\n")
    temporary.replace(path)


def remove(data_dir: Path) -> None:
    """Remove run.json, if it exists."""
    (data_dir / RUN_FILE).unlink(missing_ok=True)


def read_live(data_dir: Path) -> Run | None:
    """Return run.json of the supervisor in this data dir, or None if none runs or it is not ready yet."""
    try:
        text = (data_dir / RUN_FILE).read_text()
    except OSError:
        return None
    if owner(data_dir) is None:
        return None
    try:
        return Run.model_validate_json(text)
    except ValidationError:
        return None
