"""Errors of the local disk: full, read-only, without permission, without locks, broken.

They have many forms: an OSError of Python, SQLite's and RocksDB's words. People need one form, with the cause and what
to do. A component that keeps a copy of what Kafka has ends with such an error and is started again, since nothing is
lost; one that must go on (the gateway) handles these errors where they arise.
"""

from __future__ import annotations

import errno
import sqlite3

from tallystream.schemas.errors import RetryableError

NEXT = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "raise the quota, or free space",
    errno.EROFS: "mount it writable, or choose another --data-dir",
    errno.EACCES: "let the user of this process write there, or choose another --data-dir",
    errno.EPERM: "let the user of this process write there, or choose another --data-dir",
    errno.ENOTDIR: "a file is where a directory should be: move it away, or choose another --data-dir",
    errno.EIO: "look at the disk: the system's log says what is wrong with it",
    errno.EAGAIN: "another process has it open: stop that one, or choose another --data-dir",
    errno.ENOLCK: "its file system has no locks: choose a --data-dir on a local disk",
    errno.ENOTSUP: "its file system has no locks: choose a --data-dir on a local disk",
    errno.ENOSYS: "its file system has no locks: choose a --data-dir on a local disk",
}
"""By error number, what to do."""
OF_DISKS_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}
ROCKSDB = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "Read-only file system": errno.EROFS,
    "Permission denied": errno.EACCES,
    "Input/output error": errno.EIO,
    "Resource temporarily unavailable": errno.EAGAIN,
    "No locks available": errno.ENOLCK,
}
"""By the words with which an error of RocksDB ends."""
ROCKSDB_PREFIX = "IO error"


class LocalDiskError(RetryableError):
    """A local file cannot be read or written. Nothing is lost: Kafka has what this machine could not keep."""

    code = "disk"
    exit_code = 1


class LocalCopyDamagedError(LocalDiskError):
    """A local copy of what Kafka has is damaged; the next start removes it and fills it again."""

    code = "local_copy_damaged"


def disk_error(exc: BaseException) -> LocalDiskError | None:
    """Return an exception as an error of the local disk, or None if it is something else."""
    number: int | None = None
    what = str(exc)
    if isinstance(exc, LocalDiskError):
        return exc
    if isinstance(exc, OSError):
        # Sockets have errors of these numbers, too, but without a file's name.
        number = exc.errno if exc.filename is not None or exc.errno in OF_DISKS_ONLY else None
        what = f"{exc.filename or 'a local file'} cannot be used: {exc.strerror}"
    elif isinstance(exc, sqlite3.Error):
        number = SQLITE.get(getattr(exc, "sqlite_errorcode", 0) & 0xFF)
        what = f"a local database cannot be used: {exc}"
    elif type(exc) is Exception and what.startswith(ROCKSDB_PREFIX):  # rocksdict raises nothing more specific
        number = next((one for words, one in ROCKSDB.items() if what.rstrip(". ").endswith(words)), errno.EIO)
        what = f"a local database cannot be used: {what}"
    if number not in NEXT:
        return None
    return LocalDiskError(what, f"{NEXT[number]}; nothing is lost, and it continues where it stopped")
