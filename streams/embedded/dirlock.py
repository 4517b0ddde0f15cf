"""Ensures one broker per data dir with a kernel lock, which needs no cleanup after a kill."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

from tallystream.schemas.errors import UsageError
from tallystream.streams.local_disk import disk_error

GRACE_SECONDS = 10.0
"""Seconds that the JVM of a killed owner may take to end, because the kernel has to free its memory first."""
FORK_SECONDS = 2.0
"""Seconds that our own lock may outlive its release, in a child that another thread has forked and that has yet to
exec."""


PASSING = (errno.ENOSPC, errno.EDQUOT)
"""Errors after which the same directory can be used once there is room, so that a restart makes sense."""


class DirLock:
    """`flock` on a file. The descriptor is handed to the JVM, so the lock lasts until owner and JVM have both ended.

    Not a `streams.service.locks.ProcessLock`: releasing that one unlocks it for every holder of the descriptor.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """Return the descriptor that holds the lock."""
        assert self._fd is not None
        return self._fd

    def acquire(self) -> None:
        """Take the lock; waits for a lock whose owner is dead.

        Raises:
            UsageError: a live process has it, or the dir cannot be written.
            LocalDiskError: the disk is full, or has no locks.

        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            if exc.errno in PASSING and (full := disk_error(exc)) is not None:
                raise full from exc
            raise UsageError(
                f"{self._path.parent} cannot be written: {exc.strerror}", "choose another --data-dir"
            ) from exc
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = os.pread(fd, 32, 0).decode().strip()
                ours = owner == str(os.getpid())
                grace = FORK_SECONDS if ours else 0.0 if _alive(owner) else GRACE_SECONDS
                if time.monotonic() < began + grace:
                    time.sleep(0.05)
                    continue
                os.close(fd)
                raise UsageError(
                    f"a Kafka broker already runs in {self._path.parent} (process {owner or 'unknown'})",
                    "use that one, stop it, or choose another --data-dir",
                ) from None
            except OSError as exc:
                os.close(fd)
                exc.filename = str(self._path)
                raise disk_error(exc) or exc from exc
        with contextlib.suppress(OSError):  # a full disk; the id only serves messages
            os.pwrite(fd, str(os.getpid()).encode(), 0)
            os.ftruncate(fd, len(str(os.getpid())))
        self._fd = fd

    def release(self) -> None:
        """Release the lock; has no effect when it is not held."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _alive(pid: str) -> bool:
    if not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
