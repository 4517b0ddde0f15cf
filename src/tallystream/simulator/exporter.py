"""Collects an agent's records into request bodies, and sends some records late or twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random
from time import gmtime, strftime
from typing import NamedTuple

from tallystream.simulator.model import OtlpTransport, Request, Response
from tallystream.simulator.options import HOUR_NS, AgentOptions
from tallystream.simulator.population import Mix


@lru_cache(maxsize=4096)
def _second(seconds: int) -> bytes:
    return strftime("%Y-%m-%dT%H:%M:%S.", gmtime(seconds)).encode()


def iso(ns: int) -> bytes:
    """Return a time as clients write it: 24 characters, ms."""
    seconds, ms = divmod(ns // 1_000_000, 1000)
    return b"%b%03dZ" % (_second(seconds), ms)


class _Copy(NamedTuple):
    """A token record to be sent again, and the number of the body from which on it may go."""

    data: bytes
    response: Response
    due: int


class TelemetryExporter:
    """Collects records and cuts them into request bodies. `late` and `duplicates` of the options are at work here."""

    def __init__(self, rng: Random, options: AgentOptions, responses: Mix[int], transport: OtlpTransport) -> None:
        self._rng = rng
        self._options = options
        self._transport = transport
        self._mix = responses
        self._bodies = 0
        self._owed: list[_Copy] = []
        self._fresh()

    def _fresh(self) -> None:
        rng, options = self._rng, self._options
        self.shift_ns = 0
        """How long before the agent's present the events of this batch happened."""
        if rng.random() < options.late:
            self.shift_ns = HOUR_NS + int(rng.random() * (options.late_max_ns - HOUR_NS))
        self._wanted = self._mix.pick(rng)
        self._runs: list[bytes] = []
        self._records = 0
        self._responses: list[Response] = []
        self._copies = 0

    @property
    def full(self) -> bool:
        """Whether it is time to cut."""
        return len(self._responses) >= self._wanted

    @property
    def empty(self) -> bool:
        """Whether there is nothing to send, no copy either."""
        return not (self._runs or self._owed)

    def add(self, run: bytes, records: int) -> None:
        """Take records without tokens."""
        self._runs.append(run)
        self._records += records

    def add_response(self, data: bytes, response: Response) -> None:
        """Take a token record; one copy in ten goes into the same body, the others into one of the next six."""
        self.add(data, 1)
        self._responses.append(response)
        rng = self._rng
        if rng.random() < self._options.duplicates:
            later = rng.random() >= 0.1
            copy = _Copy(data, response, self._bodies + 1 + int(rng.random() * 6))
            if later:
                self._owed.append(copy)
            else:
                self._repeat(copy)

    def _repeat(self, copy: _Copy) -> None:
        self.add(copy.data, 1)
        self._responses.append(copy.response)
        self._copies += 1

    def cut(
        self, at_ns: int, body: Callable[[Sequence[bytes]], bytes], *, last: bool = False, extra: int = 0
    ) -> Request:
        """End the batch. `body` makes a request of its runs, with `extra` records; the `last` takes all copies due."""
        self._bodies += 1
        due = [copy for copy in self._owed if last or copy.due <= self._bodies]
        if due:
            self._owed = [copy for copy in self._owed if not (last or copy.due <= self._bodies)]
            for copy in due:
                self._repeat(copy)
        options = self._options
        request = Request(
            options.number,
            at_ns,
            "logs",
            body(self._runs),
            options.wire.content_type,
            self._transport,
            options.gzip,
            self._records + extra,
            tuple(self._responses),
            self._copies,
            self.shift_ns > 0,
        )
        self._fresh()
        return request
