"""Ports that a restarted process can have again."""

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
"""The kernel takes the local ports of outgoing connections from 32768 upwards (Linux' default): a port from there could
be taken by anybody's connection in the moment between the end of a process and its restart."""
ATTEMPTS = 200
RESERVED_FOR = 60.0
"""Seconds that a picked port is left alone by other processes of ours: it is bound by a process that starts first."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen there now, connections of an earlier one in TIME_WAIT aside."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def pick(*taken: int) -> int:
    """Return a free port below the ephemeral ones that is none of `taken`, and that nobody else has picked just now.

    Raises:
        UnreachableError: no free port was found.

    """
    for _ in range(ATTEMPTS):
        port = random.choice(BELOW_EPHEMERAL)  # noqa: S311 - no secret
        # Reserved before it is tried: trying is listening for a moment, which could meet the one who has picked it.
        if port not in taken and _reserve(port) and is_free(port):
            return port
    raise UnreachableError(
        f"no free port between {BELOW_EPHEMERAL.start} and {BELOW_EPHEMERAL.stop}", "what listens there?"
    )


def _reserve(port: int) -> bool:
    """Tell whether the port is ours to try: its file is made by one process alone. Without a place for files, it is."""
    path = Path(tempfile.gettempdir()) / f"tallystream-ports-{os.getuid()}" / str(port)
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
