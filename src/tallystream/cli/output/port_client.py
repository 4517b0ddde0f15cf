"""Runs work with a client for Port's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tallystream.agents.port_sink.port.client import PortClient
    from tallystream.settings.settings import Settings

T = TypeVar("T")


def with_client(settings: Settings, work: Callable[[PortClient], Awaitable[T]]) -> T:
    """Return the result of `work(client)`.

    Raises:
        UsageError: credentials are missing, or the CA file cannot be used.
        PortError: Port does not answer, or refuses.

    """
    from tallystream.agents.port_sink.port.client import PortClient
    from tallystream.cli.output.progress import run
    from tallystream.components.sink import client_config

    async def working() -> T:
        async with PortClient(client_config(settings)) as client:
            return await work(client)

    return run(working())
