"""Picks TCP ports that a process can bind again after a restart."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import tempfile
import time
from pathlib import Path

from tallystream.schemas.errors import UnreachableError

BELOW_EPHEMERAL = range(20_000, 32_000)
"""The kernel takes the local ports of outgoing connections from 32768 upwards (Linux' default): any connection could
take such a port between the end of a process and its restart."""
ATTEMPTS = 200
RESERVED_FOR = 60.0
"""Seconds for which our other processes do not pick a port again, because the process that will bind it has to start
first."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen there now; connections in TIME_WAIT are ignored."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def pick(*taken: int) -> int:
    """Return a free port below the ephemeral ones that is not in `taken` and that no other process has just picked.

    Raises:
        UnreachableError: all ports in the range are taken.

    """
    for _ in range(ATTEMPTS):
        port = random.choice(BELOW_EPHEMERAL)  # noqa: S311 - no secret
        # Reserve it before testing it, because the test briefly listens and could collide with the process that picked
        # it.
        if port not in taken and reserve(port) and is_free(port):
            return port
    raise UnreachableError(
        f"no free port between {BELOW_EPHEMERAL.start} and {BELOW_EPHEMERAL.stop}", "what listens there?"
    )


def reserve(port: int) -> bool:
    """Tell whether we may try the port, by creating its file exclusively. True if files cannot be created."""
    path = reservation(port)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(exist_ok=False)
    except FileExistsError:
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > RESERVED_FOR:
                path.unlink()
        return False
    except OSError:
        return True
    return True


def reservation(port: int) -> Path:
    """Return the file that reserves a port until it is RESERVED_FOR seconds old."""
    return Path(tempfile.gettempdir()) / f"tallystream-ports-{os.getuid()}" / str(port)
