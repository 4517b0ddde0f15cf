"""A lock between processes, by a kernel lock on a file, which needs no cleanup after a kill.

It uses flock(2) through filelock: the kernel releases it when the process ends, however it ends. The file remains and
contains the id of the last owner; only the lock itself shows whether that process still holds it (`holder`).
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

POLL = 0.02
"""Seconds between two attempts while waiting for a lock."""


class ProcessLock:
    """The lock of one file. It is not reentrant, and the directory of the file must exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False, on_acquired=_write_pid)

    def acquire(self, wait: float = 0.0) -> bool:
        """Take the lock within `wait` seconds (negative: wait forever); return whether it was taken.

        Raises:
            OSError: the file cannot be created, or its file system has no locks.

        """
        try:
            self._lock.acquire(timeout=wait, blocking=wait != 0, poll_interval=POLL)
        except Timeout:
            return False
        except NotImplementedError as exc:  # filelock's name for a file system without locks
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(self.path)) from exc
        except OSError as exc:
            if exc.filename is None:
                exc.filename = str(self.path)
            raise
        return True

    def release(self) -> None:
        """Release the lock; has no effect when it is not held."""
        self._lock.release()


@contextmanager
def held(path: Path, refused: Callable[[int | None], Exception]) -> Iterator[None]:
    """Hold the lock of `path`, whose directory is created; raises `refused(pid)` when the process `pid` has it.

    Raises:
        OSError: the directory or the file cannot be created.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = ProcessLock(path)
    if not lock.acquire():
        raise refused(holder(path))
    try:
        yield
    finally:
        lock.release()


def holder(path: Path) -> int | None:
    """Return the id of the process that has the lock of `path`; None when it is free or the owner is unknown."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isascii() and text.isdigit() else None
    else:
        return None
    finally:
        os.close(fd)


def _write_pid(fd: int) -> None:
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
