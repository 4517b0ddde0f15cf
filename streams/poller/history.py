"""When each resource was last polled with success and without, and why it failed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from tallystream.schemas.status import ResourceStatus
from tallystream.streams.poller.errors import PollError
from tallystream.streams.poller.resources import Resource


class PollHistory:
    """Of one poller since it started."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._resources = {one.name: ResourceStatus(name=one.name, key=one.asks_with) for one in resources}

    def succeeded(self, name: str, at: datetime) -> None:
        """Note a poll without a failure."""
        self._change(name, last_success_at=at, reason=None, message="", next_step="")

    def failed(self, name: str, failure: PollError, at: datetime) -> None:
        """Note a poll that failed after all retries."""
        self._change(
            name, last_failure_at=at, reason=failure.why.value, message=failure.message, next_step=failure.hint
        )

    def resources(self) -> list[ResourceStatus]:
        """Return what is known of each resource."""
        return list(self._resources.values())

    def _change(self, name: str, **changes: object) -> None:
        self._resources[name] = self._resources[name].model_copy(update=changes)
