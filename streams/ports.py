"""Ports that a restarted process can have again."""

from __future__ import annotations

import random
import socket

from tallystream.schemas.errors import Unreachable

BELOW_EPHEMERAL = range(20_000, 32_000)
"""The kernel takes the local ports of outgoing connections from 32768 upwards (Linux' default): a port from there could
be taken by anybody's connection in the moment between the end of a process and its restart."""
ATTEMPTS = 200


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
    """Return a free port below the ephemeral ones that is none of `taken`.

    Raises:
        Unreachable: no free port was found.

    """
    for _ in range(ATTEMPTS):
        port = random.choice(BELOW_EPHEMERAL)  # noqa: S311 - no secret
        if port not in taken and is_free(port):
            return port
    raise Unreachable(f"no free port between {BELOW_EPHEMERAL.start} and {BELOW_EPHEMERAL.stop}", "what listens there?")
