"""When each resource is polled next: all of them once per interval, a failed one again within minutes. Pure."""

from __future__ import annotations

import random

from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.poll_run import PollResult
from tallystream.streams.poller.resources import Resource
from tallystream.streams.service.backoff import Backoff

TOGETHER = 1.0
"""Seconds: resources that are due within this time are polled together."""


class Agenda:
    """The poll times of one poller, in seconds of any monotonic clock. At first, everything is due."""

    def __init__(self, config: PollerConfig) -> None:
        self._config = config
        self._backoff = Backoff(config.retry, config.interval, jitter=True)
        self._run_at = float("-inf")
        """When all resources are due again."""
        self._retry_at: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def due(self, now: float) -> list[Resource]:
        """Return the resources to poll now."""
        if self._run_at <= now + TOGETHER:
            return list(self._config.resources)
        return [one for one in self._config.resources if self._retry_at.get(one.name, self._run_at) <= now + TOGETHER]

    def note(self, polled: list[Resource], result: PollResult, now: float) -> None:
        """Record the results of the resources that were due."""
        if len(polled) == len(self._config.resources):
            spread = random.random() * self._config.jitter  # noqa: S311 - no secret
            self._run_at = now + self._config.interval * (1 + spread)
        for name in (one.name for one in polled):
            failure = result.failures.get(name)
            if failure is None:
                self._failures.pop(name, None)
                self._retry_at.pop(name, None)
                continue
            failures = self._failures.get(name, 0)
            self._failures[name] = failures + 1
            self._retry_at[name] = now + self._backoff.delay(failures, at_least=failure.retry_after or 0.0)

    def next_at(self) -> float:
        """Return when the next resource is due."""
        return min((self._run_at, *self._retry_at.values()))
