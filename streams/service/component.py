"""The shape of every component: what the harness runs, asks and shows.

A component is a package with these modules:

    config    a frozen dataclass, read once at the edge: everything the component can be told
    service   the class, made as `Service(config, registry, clock)`
    metrics   every metric it counts, explained where it is named
    errors    what can go wrong in it, each an `...Error`
"""

from __future__ import annotations

from typing import Protocol

from tallystream.schemas.status import Detail
from tallystream.streams.service.ops import Health


class Component(Protocol):
    """One process's work, whatever it is."""

    async def run(self) -> None:
        """Work until cancelled; a cancel finishes what is under way before it leaves.

        Raises:
            TallystreamError: the component cannot go on; a restart alone does not help, unless it is UnreachableError.

        """
        ...

    def healthy(self) -> Health:
        """Return whether work goes on: when not, the process is restarted."""
        ...

    def ready(self) -> Health:
        """Return whether the component can be used now."""
        ...

    def status(self) -> Detail | None:
        """Return what programs may know of it, None while it cannot tell yet; cheap, as `wait` asks every 100 ms."""
        ...
