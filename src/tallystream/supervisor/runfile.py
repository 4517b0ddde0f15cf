"""DATA_DIR/run.json and the lock that tells a living supervisor from one that was killed.

The lock is `flock` on DATA_DIR/up.lock, held by the supervisor's process alone: the kernel drops it with the process,
however that ends, so a run.json beside a lock nobody holds is stale. The lock file holds the supervisor's pid.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from tallystream.schemas.errors import UsageError
from tallystream.schemas.run import Run

RUN_FILE = "run.json"
LOCK_FILE = "up.lock"


class SupervisorLock:
    """The right to run in a data dir. A context manager; `owner` tells who has it."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / LOCK_FILE
        self._fd: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            UsageError: another supervisor runs in this data dir, or the dir cannot be written.

        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise UsageError(
                f"the data dir {self._path.parent} cannot be written: {exc.strerror}", "name another with --data-dir"
            ) from exc
        # A reader that looks at the lock holds it for an instant: not a reason to give up.
        deadline = time.monotonic() + 1.0
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                pid = os.pread(fd, 32, 0).decode().strip()
                os.close(fd)
                raise UsageError(
                    f"tallystream already runs in {self._path.parent} (pid {pid})",
                    "`tallystream status` shows it, `tallystream down` stops it; --data-dir runs a second one",
                ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def owner(data_dir: Path) -> int | None:
    """Return the pid of the supervisor that runs in this data dir, or None."""
    try:
        fd = os.open(data_dir / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).decode().strip()
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(fd)


def write(data_dir: Path, run: Run) -> None:
    """Write run.json by rename, so that a reader sees the old file or the new one, never half of one."""
    path = data_dir / RUN_FILE
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(run.model_dump_json(indent=2) + "\n")
    temporary.replace(path)


def remove(data_dir: Path) -> None:
    """Remove run.json, when it is there."""
    (data_dir / RUN_FILE).unlink(missing_ok=True)


def read_live(data_dir: Path) -> Run | None:
    """Return run.json of the supervisor that runs in this data dir; None when none does or it is not ready yet."""
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
