"""Fleets of the simulator, each in its own thread, which know what was acknowledged."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass

from tallystream.simulator import FleetConfig, Load, Report, Request, Response, Truth, run, target

HOUR_NS = 3_600_000_000_000


class Watched(Truth):
    """A truth that also tracks the requests in flight, and each response that was sent and acknowledged."""

    def __init__(self, config: FleetConfig) -> None:
        super().__init__(config)
        self.in_flight = 0
        self.sent_responses: set[Response] = set()
        self.acknowledged_responses: set[Response] = set()

    def begin(self, request: Request) -> None:
        self.in_flight += 1
        self.sent_responses.update(request.responses)
        super().begin(request)

    def end(self, request: Request, status: int | None) -> None:
        self.in_flight -= 1
        if status == 200:
            self.acknowledged_responses.update(request.responses)
        super().end(request, status)


@dataclass(frozen=True)
class Fleetwise:
    """How a fleet behaves. `skew_hours` is the error of its clocks; `at_ns` sets them to a fixed time."""

    rate: float
    seed: int
    agents: int = 50
    requests: int = 1_000_000
    skew_hours: float = 0.0
    at_ns: int | None = None
    duplicates: float = 0.1
    late: float = 0.05
    retries: int = 0


class Fleet:
    """Runs until `stop`."""

    def __init__(self, base: str, ingest_id: str, how: Fleetwise) -> None:
        start = time.time_ns() - HOUR_NS if how.at_ns is None else how.at_ns
        config = FleetConfig(
            agents=how.agents, requests=how.requests, seed=how.seed, start_ns=start + int(how.skew_hours * HOUR_NS),
            duplicates=how.duplicates, late=how.late, late_max_ns=20 * HOUR_NS,
        )  # fmt: skip
        self.base, self.ingest_id = base, ingest_id
        self.how = how
        self.truth = Watched(config)
        self.report = Report()
        self._target = target(base, ingest_id)
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._play())
        except BaseException as exc:
            self._error = exc
        finally:
            self._loop.close()

    async def _play(self) -> None:
        self._stop = asyncio.Event()
        # One process simulates all agents, so a request without an answer must not delay the others.
        load = Load(rate=self.how.rate, retries=self.how.retries, timeout_s=30.0, concurrency=4 * self.how.agents)
        self.report = await run(
            self.truth.config, self._target, load, truth=self.truth, stop=self._stop, watch=self._watch
        )

    def _watch(self, report: Report) -> None:
        self.report = report

    @property
    def running(self) -> bool:
        return self._thread.is_alive() and not self.report.complete

    def stop(self) -> Report:
        """Let requests in flight finish."""
        if self._thread.is_alive() and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        if self._error is not None:
            raise self._error
        return self.report
