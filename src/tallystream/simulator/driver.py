"""Plays a fleet against a gateway over keep-alive connections, with at most one request in flight for each agent.

Like Codex it does not retry refused requests unless told to (Claude Code and Gemini CLI would). With a rate the load is
open: requests are sent on schedule even if earlier ones were not answered, and latency counts from the scheduled time,
so that a stall shows in the latencies.
"""

from __future__ import annotations

import asyncio
import gzip
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from tallystream.simulator.fleet import Fleet
from tallystream.simulator.model import Request
from tallystream.simulator.options import FleetConfig
from tallystream.simulator.target import SimulationTarget
from tallystream.simulator.truth import Truth
from tallystream.streams.service.backoff import Backoff
from tallystream.streams.service.clock import Clock, SystemClock

RETRYABLE = frozenset({429, 502, 503, 504})
BACKOFF = Backoff(first=0.1, longest=60.0)
"""OTLP specification: the only statuses after which a client may send a body again."""
_SLICE_S = 0.1
"""How long a wait for the next due request can delay a stop."""


@dataclass(frozen=True)
class Load:
    """How to send."""

    rate: float | None = None
    """OTLP requests a second; None: as fast as they are answered."""
    concurrency: int | None = None
    """Requests in flight at most; None: one an agent."""
    retries: int = 0
    """How often a request without an answer, or with a retryable one, is sent again."""
    timeout_s: float = 30.0
    """For one attempt; after it the request has no answer."""
    grace_s: float = 5.0
    """How long a stop waits for answers."""
    checkpoint_s: float = 2.0
    """Between two writes of the truth file."""


@dataclass
class Report:
    """The result so far, consistent at any moment of the run."""

    seconds: float = 0.0
    bodies: int = 0
    """Requests that have an outcome, an answer or none."""
    records: int = 0
    responses: int = 0
    """Token records in these bodies."""
    bytes: int = 0
    retried: int = 0
    partial: int = 0
    """Answers 200 that reported rejected records."""
    answers: Counter[str] = field(default_factory=Counter)
    """Outcomes by status; `none` counts requests without an answer."""
    complete: bool = False
    """Whether all of the fleet was sent, rather than stopped."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Reasons for missing answers."""
    latencies: array[float] = field(default_factory=lambda: array("d"), repr=False)
    """Seconds, of every request with an answer."""

    def percentiles(self) -> dict[str, float]:
        """Return latency in ms: p50, p99 and max."""
        ordered = sorted(self.latencies)
        if not ordered:
            return {}
        last = len(ordered) - 1
        return {
            name: round(ordered[round(share * last)] * 1000, 3)
            for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))
        }

    def document(self) -> dict[str, Any]:
        """Return the report as JSON."""
        per_second = {
            f"{name}_per_s": round(number / self.seconds, 1) if self.seconds else None
            for name, number in (("bodies", self.bodies), ("records", self.records), ("token_records", self.responses))
        }
        return {
            "complete": self.complete,
            "seconds": round(self.seconds, 3),
            "bodies": self.bodies,
            "records": self.records,
            "token_records": self.responses,
            "bytes": self.bytes,
            **per_second,
            "retried": self.retried,
            "partial": self.partial,
            "http": dict(sorted(self.answers.items())),
            "no_answer": dict(self.reasons),
            "latency": self.percentiles(),
        }


class _Run:
    """One run's state, shared by its senders."""

    def __init__(
        self,
        requests: Iterator[Request],
        target: SimulationTarget,
        load: Load,
        truth: Truth,
        stop: asyncio.Event,
        clock: Clock,
    ) -> None:
        self.report = Report()
        self.started = clock.monotonic()
        self._numbered = zip(count(), requests, strict=False)
        self._urls = {signal: URL(target.url(signal), encoded=True) for signal in ("logs", "metrics", "traces")}
        self._headers = target.headers
        self._load = load
        self._truth = truth
        self._stop = stop
        self._clock = clock

    def elapsed(self) -> float:
        """Return seconds since the start."""
        return self._clock.monotonic() - self.started

    async def send_all(self, session: aiohttp.ClientSession) -> None:
        """One sender: takes the next request until there is none or the run is stopped."""
        monotonic = self._clock.monotonic
        while not self._stop.is_set():
            taken = next(self._numbered, None)
            if taken is None:
                self.report.complete = True
                return
            number, request = taken
            since = monotonic()
            if self._load.rate is not None:
                since = self.started + number / self._load.rate
                while (wait := since - monotonic()) > 0:
                    if self._stop.is_set():
                        return
                    await asyncio.sleep(min(wait, _SLICE_S))
            await self._send(session, request, since)

    async def _send(self, session: aiohttp.ClientSession, request: Request, since: float) -> None:
        """Send one request and write down its outcome."""
        report, truth = self.report, self._truth
        headers = {"Content-Type": request.content_type, "User-Agent": request.transport.user_agent, **self._headers}
        body = request.body
        if request.gzip:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1, mtime=0)
        truth.begin(request)
        for attempt in range(self._load.retries + 1):
            status, after = await self._attempt(session, request, body, headers)
            if status is not None and status not in RETRYABLE:
                break
            if attempt < self._load.retries:
                report.retried += 1
                await asyncio.sleep(after if after is not None else BACKOFF.delay(attempt))
        truth.end(request, status)
        report.bodies += 1
        report.records += request.records
        report.responses += len(request.responses)
        report.bytes += len(body)
        report.answers["none" if status is None else str(status)] += 1
        if status is not None:
            report.latencies.append(self._clock.monotonic() - since)

    async def _attempt(
        self, session: aiohttp.ClientSession, request: Request, body: bytes, headers: dict[str, str]
    ) -> tuple[int | None, float | None]:
        """Return the status and what Retry-After says, at most 5 s."""
        try:
            async with session.post(
                self._urls[request.signal],
                data=body,
                headers=headers,
                allow_redirects=False,
                chunked=request.transport.chunked or None,
            ) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            self.report.reasons[type(exc).__name__] += 1
            return None, None
        if response.status == 200 and answer.strip() not in (b"", b"{}"):
            self.report.partial += 1
        after = response.headers.get("Retry-After", "")
        return response.status, min(float(after), 5.0) if after.isdigit() else None


async def run(
    config: FleetConfig,
    target: SimulationTarget,
    load: Load = Load(),
    *,
    truth: Truth | None = None,
    truth_file: Path | None = None,
    stop: asyncio.Event | None = None,
    watch: Callable[[Report], None] | None = None,
    clock: Clock | None = None,
) -> Report:
    """Play the fleet of `config` and return what happened. `truth` learns every outcome and is marked final.

    `truth_file` is written repeatedly while the load runs, without rows; writing the last one, with rows, is up to
    the caller, for it asks the price book. Setting `stop` lets the requests in flight end and sends no more. `watch` is
    called ten times a second.

    Raises:
        OSError: the truth file cannot be written.

    """
    truth = Truth(config) if truth is None else truth
    stop = asyncio.Event() if stop is None else stop
    state = _Run(iter(Fleet(config)), target, load, truth, stop, clock or SystemClock())
    senders = load.concurrency or config.agents
    timeout = aiohttp.ClientTimeout(total=load.timeout_s)
    connector = aiohttp.TCPConnector(limit=senders, ttl_dns_cache=300)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        tasks = [asyncio.create_task(state.send_all(session)) for _ in range(senders)]
        try:
            await _watched(tasks, state, load, truth, truth_file, stop, watch)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    state.report.seconds = state.elapsed()
    truth.final = True
    if watch is not None:
        watch(state.report)
    return state.report


async def _watched(
    tasks: list[asyncio.Task[None]],
    state: _Run,
    load: Load,
    truth: Truth,
    truth_file: Path | None,
    stop: asyncio.Event,
    watch: Callable[[Report], None] | None,
) -> None:
    """Wait for the senders, and keep everybody informed meanwhile."""
    pending = set(tasks)
    written = stopped = float("-inf")
    while pending:
        if truth_file is not None and state.elapsed() - written >= load.checkpoint_s:
            truth.write(truth_file, rows=False)
            written = state.elapsed()
        done, pending = await asyncio.wait(pending, timeout=0.1)
        for task in done:
            task.result()
        state.report.seconds = state.elapsed()
        if watch is not None:
            watch(state.report)
        if stop.is_set():
            stopped = max(stopped, 0.0) or state.elapsed()
            if state.elapsed() - stopped > load.grace_s:
                return
