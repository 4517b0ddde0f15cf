"""A directory that other users of this machine can neither read nor have prepared.

What is kept in it (sessions, hashes of secrets, Kafka's segments) is this user's. A directory that another user made
could be read or replaced by them at any time, and a link could lead anywhere.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from tallystream.schemas.errors import UsageError

OPEN_TO_OTHERS = 0o077


def claim(directory: Path) -> None:
    """Create the directory for this user alone, or accept an existing one.

    What this process and its children create from now on is private too.
    A volume that a container is given belongs to root, who may do anything anyway: its mode is left alone.

    Raises:
        UsageError: it is a link, no directory, or somebody else's.
        OSError: it cannot be created.

    """
    os.umask(os.umask(OPEN_TO_OTHERS) | OPEN_TO_OTHERS)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise UsageError(
            f"the data dir {directory} is a symbolic link", f"name where it leads: --data-dir {directory.resolve()}"
        )
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"the data dir {directory} is not a directory", "name another with --data-dir")
    if found.st_uid not in (os.geteuid(), 0):
        raise UsageError(
            f"the data dir {directory} belongs to another user (uid {found.st_uid}; this is uid {os.geteuid()})",
            "name one of your own with --data-dir",
        )
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & OPEN_TO_OTHERS:
        directory.chmod(stat.S_IMODE(found.st_mode) & ~OPEN_TO_OTHERS)
