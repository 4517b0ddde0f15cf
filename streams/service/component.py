"""The interface of every component, as the harness runs and queries it.

A component is a package with these modules:

    config    a frozen dataclass with all settings, built once by the composition root
    service   the class, made as `Service(config, registry, clock)`
    metrics   every metric it exports, with an explanation
    errors    its exceptions, each named `...Error`
"""

from __future__ import annotations

from typing import Protocol

from tallystream.schemas.status import Detail
from tallystream.streams.service.ops import Health


class Component(Protocol):
    """The work of one process."""

    async def run(self) -> None:
        """Work until cancelled; on cancellation, work in progress is finished first.

        Raises:
            TallystreamError: the component cannot continue; a restart alone does not help, except after
                UnreachableError.

        """
        ...

    def healthy(self) -> Health:
        """Return whether the component makes progress; if not, the process is restarted."""
        ...

    def ready(self) -> Health:
        """Return whether the component can be used now."""
        ...

    def status(self) -> Detail | None:
        """Return its state for programs, None while it is not known yet. Must be cheap, because `wait` asks every 100
        ms.
        """
        ...
