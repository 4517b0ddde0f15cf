"""Accepts connections up to a limit, which includes those in the TLS handshake.

asyncio's own servers accept without a limit and do not report when they run out of file descriptors. Here a connection
beyond the limit replaces the one that has been idle longest, so that a client cannot lock others out by holding
connections open; and a failed accept is counted, logged and retried.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import Callable
from typing import Final, Protocol

from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.service.clock import Clock
from tallystream.streams.service.log_throttle import LogThrottle

BACKLOG: Final = 1024
HANDSHAKE_TIMEOUT: Final = 10.0
PAUSE: Final = 0.1
"""Seconds between a failed accept and the next attempt."""
QUIET: Final = 1.0
"""Seconds without a request after which a connection may be closed for lack of file descriptors. The next one waits in
the kernel's queue meanwhile, whereas one that was accepted just now is about to send its request."""
RESERVED_FILES: Final = 256
"""File descriptors reserved for the spool, Kafka and the ops port."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Peer(Protocol):
    """A connection as seen by the acceptor."""

    closed: Callable[[], None]
    """Called when the connection has ended."""

    @property
    def requested(self) -> bool:
        """Whether it has ever sent a request."""
        ...

    @property
    def idle(self) -> bool:
        """Whether a request is neither being read nor answered."""
        ...

    def drop(self) -> None:
        """Close it at once."""
        ...


def connection_limit(wanted: int) -> int:
    """Return the maximum number of connections, given how many files this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(16, min(wanted, soft - RESERVED_FILES))


class Acceptor:
    """Listens on one address; `factory` makes the protocol of each connection."""

    def __init__(
        self,
        factory: Callable[[], Peer],
        limit: int,
        metrics: Metrics,
        clock: Clock,
        tls: Callable[[], ssl.SSLContext | None],
    ) -> None:
        self._factory = factory
        self._limit = limit
        self._metrics = metrics
        self._tls = tls
        self._refused = LogThrottle(clock, "accept_refused")
        self._crowded = LogThrottle(clock, "too_many_connections")
        self._sockets: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._clock = clock
        self._handshakes: dict[asyncio.Task[None], float] = {}
        """When each was begun."""
        self._open: dict[Peer, float] = {}
        """Connections in the order of their last request, and when that began."""
        self.address = ("", 0)

    @property
    def connections(self) -> int:
        """Return the number of connections, including those in the TLS handshake."""
        return len(self._open) + len(self._handshakes)

    async def start(self, host: str, port: int, *, reuse_port: bool) -> None:
        """Start to listen; then `address` holds the actual port.

        Raises:
            OSError: the address is taken or not ours.

        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, kind, protocol, _, where in dict.fromkeys(found):
                listening = socket.socket(family, kind, protocol)
                self._sockets.append(listening)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if reuse_port:
                    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listening.setblocking(False)
                listening.bind((where[0], self.address[1] or where[1], *where[2:]))
                listening.listen(BACKLOG)
                self.address = self.address if self.address[1] else listening.getsockname()[:2]
        except OSError:
            self._close_sockets()
            raise
        self._tasks = [asyncio.create_task(self._accept(listening)) for listening in self._sockets]

    async def stop_listening(self) -> None:
        """Accept no more."""
        await cancel(*self._tasks)
        self._close_sockets()

    async def close(self) -> None:
        """End what is still in its handshake, and connections that wait for a request: none would be answered."""
        await cancel(*self._handshakes)
        for peer in [peer for peer in self._open if peer.idle]:
            peer.drop()

    def busy(self, peer: Peer) -> None:
        """Note that a connection has a request, which makes it the last idle one to be closed."""
        if peer in self._open:
            del self._open[peer]
            self._open[peer] = self._clock.monotonic()

    def _close_sockets(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._sockets = []

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as exc:
                self._metrics.accepts_refused.inc()
                self._refused.warning(error=errno.errorcode.get(exc.errno or 0, type(exc).__name__))
                if exc.errno in _EXHAUSTED:
                    self._make_room(QUIET)
                    await asyncio.sleep(PAUSE)
                continue
            if self.connections >= self._limit and not self._make_room():
                self._metrics.connections_refused.inc()
                self._crowded.warning(limit=self._limit)
                accepted.close()
                continue
            task = loop.create_task(self._connect(accepted))
            self._handshakes[task] = self._clock.monotonic()
            task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)
        if not task.cancelled():
            task.exception()

    async def _connect(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        peer = self._factory()
        assert isinstance(peer, asyncio.BaseProtocol)
        ended = False

        def closed() -> None:
            nonlocal ended
            ended = True
            self._open.pop(peer, None)

        peer.closed = closed

        tls = self._tls()
        timeout = HANDSHAKE_TIMEOUT if tls is not None else None
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(lambda: peer, accepted, ssl=tls, ssl_handshake_timeout=timeout)
        except (OSError, asyncio.CancelledError, TimeoutError):
            accepted.close()
            raise
        if not ended:
            self._open[peer] = self._clock.monotonic()

    def _make_room(self, quiet: float = 0.0) -> bool:
        """Close a connection that has never sent a request, else the oldest handshake, else the one idle longest.

        Only those that have been quiet for so many seconds. Return whether there was one.
        """
        before = self._clock.monotonic() - quiet
        idle = [peer for peer, since in self._open.items() if peer.idle and since <= before]
        silent = next((peer for peer in idle if not peer.requested), None)
        handshake = next((task for task, since in self._handshakes.items() if since <= before), None)
        if silent is None and handshake is not None:
            self._handshakes.pop(handshake)
            handshake.cancel()
        elif peer := silent or next(iter(idle), None):
            self._open.pop(peer)
            peer.drop()
        else:
            return False
        self._metrics.connections_evicted.inc()
        return True
