"""One run over the resources: each query is fetched whole, compared and published; a failed query does not affect the
others.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import structlog

from tallystream.schemas import exact, keys
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.openai import CURRENT, OpenAIRecord, PollCursor, at, bucket_name, digest, seconds
from tallystream.streams.leader_election import Fence, NotLeaderError
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.errors import FailureReason, PollError
from tallystream.streams.poller.extract import Row
from tallystream.streams.poller.history import PollHistory
from tallystream.streams.poller.metrics import PollerMetrics
from tallystream.streams.poller.personal import without_people
from tallystream.streams.poller.published import PublishedIndex
from tallystream.streams.poller.publisher import Publisher
from tallystream.streams.poller.query import Getter, fetch_buckets, fetch_current
from tallystream.streams.poller.resources import Resource
from tallystream.streams.poller.schedule import BucketWindow, Coverage, TimeSpan
from tallystream.streams.service.clock import Clock, utc

log = structlog.get_logger()


class PollProgress(Protocol):
    """Receives the progress of a run."""

    def planned(self, resource: str, spans: int) -> None:
        """Note the number of queries that will be made for a resource."""

    def done(self, resource: str) -> None:
        """Note that a query has been published."""

    def failed(self, resource: str, failure: PollError) -> None:
        """Note that a query has failed; the resource's other queries are left for the next run."""


class NullProgress:
    """Ignores the progress."""

    def planned(self, resource: str, spans: int) -> None:
        """Ignore."""

    def done(self, resource: str) -> None:
        """Ignore."""

    def failed(self, resource: str, failure: PollError) -> None:
        """Ignore."""


@dataclass
class PollLease:
    """The state of one term as the active poller: the fence, the published index and the cursors."""

    fence: Fence
    index: PublishedIndex
    cursors: dict[bytes, PollCursor]


@dataclass
class PollResult:
    """The result of a run."""

    published: int = 0
    restated: int = 0
    unchanged: int = 0
    failures: dict[str, PollError] = field(default_factory=dict)


class PollRun:
    """Polls resources. Between runs it remembers only which resources failed, to log each failure once."""

    def __init__(
        self, config: PollerConfig, getter: Getter, publisher: Publisher, metrics: PollerMetrics, clock: Clock,
        progress: PollProgress, history: PollHistory,
    ) -> None:  # fmt: skip
        self._config = config
        self._getter = getter
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._progress = progress
        self._history = history
        self._failing: dict[str, FailureReason] = {}

    async def poll_resources(self, lease: PollLease, resources: Iterable[Resource]) -> PollResult:
        """Poll each resource once, a few at a time.

        Raises:
            NotLeaderError: another poller may be the active one now.
            UnreachableError: Kafka did not answer when the topic was read.

        """
        await lease.index.refresh()
        await self._repair(lease)
        result = PollResult()
        turns = asyncio.Semaphore(self._config.concurrency)

        async def one(resource: Resource) -> None:
            async with turns:
                await self._guarded(resource, lease, result)

        replaced = False
        try:
            async with asyncio.TaskGroup() as group:
                for resource in resources:
                    group.create_task(one(resource))
        except* NotLeaderError:
            # What is raised here leaves as part of an ExceptionGroup, which no caller expects.
            replaced = True
        if replaced:
            self._metrics.discarded.inc()
            raise NotLeaderError
        return result

    async def _repair(self, lease: PollLease) -> None:
        """Write the records again that a replaced poller has overtaken; those that cannot be wait for the next poll."""
        if not (repairs := await lease.index.overtaken()):
            return
        try:
            await self._publisher.publish(lease.fence, lease.index, repairs, None)
        except PollError as failure:
            log.warning("records_not_repaired", records=len(repairs), why=failure.message, next=failure.hint)
            return
        self._metrics.repaired.inc(len(repairs))
        log.warning("records_repaired", records=len(repairs), why="a replaced poller wrote after its successor")

    async def _guarded(self, resource: Resource, lease: PollLease, result: PollResult) -> None:
        name = resource.name
        try:
            with self._metrics.duration.labels(name).time():
                await self._poll(resource, lease, result)
        except PollError as failure:
            self._failed(name, failure, result)
        except InvalidBodyError as exc:
            self._failed(name, PollError(FailureReason.SHAPE, exc.message, "the rows cannot be kept exactly"), result)
        except NotLeaderError:
            raise
        except Exception as exc:  # noqa: BLE001 - a defect in one resource must not stop the others
            trace = self._config.tokens.scrub(traceback.format_exc())
            log.error("poll_defect", resource=name, trace=trace)  # noqa: TRY400 - the trace is scrubbed first
            defect = PollError(
                FailureReason.INTERNAL, f"a defect: {type(exc).__name__}", "report it with the log's trace"
            )
            self._failed(name, defect, result)
        else:
            self._metrics.last_success.labels(name).set(self._now())
            self._history.succeeded(name, utc(self._clock.now_ns()))
            if self._failing.pop(name, None):
                log.info("poll_recovered", resource=name)

    def _failed(self, name: str, failure: PollError, result: PollResult) -> None:
        result.failures[name] = failure
        self._metrics.failures.labels(name, failure.why.value).inc()
        self._history.failed(name, failure, utc(self._clock.now_ns()))
        self._progress.failed(name, failure)
        level = log.info if self._failing.get(name) == failure.why else log.warning
        level("poll_failed", resource=name, reason=failure.why.value, why=failure.message, next=failure.hint)
        self._failing[name] = failure.why

    async def _poll(self, resource: Resource, lease: PollLease, result: PollResult) -> None:
        query = _Query(
            resource, resource.fingerprint(self._config.account), resource.fixed_params(), self._config.pseudonym
        )
        if resource.window is None:
            self._progress.planned(resource.name, 1)
            began = self._clock.now_ns()
            rows = await fetch_current(self._getter, resource, began / 1e9)
            record = await asyncio.to_thread(query.record, CURRENT, None, utc(began), rows)
            await self._publish(lease, [record], None, resource, result)
            self._progress.done(resource.name)
        else:
            await self._poll_window(query, resource.window, lease, result)

    async def _poll_window(self, query: _Query, window: BucketWindow, lease: PollLease, result: PollResult) -> None:
        resource = query.resource
        planned_at = self._now()
        cursor = lease.cursors.get(query.cursor_key)
        coverage = Coverage(seconds(cursor.first), seconds(cursor.settled)) if cursor else window.begin(planned_at)
        spans = window.plan(planned_at, coverage, int(self._config.backfill))
        self._progress.planned(resource.name, len(spans))
        opens = window.opens(planned_at)
        self._metrics.open_buckets.labels(resource.name).set((window.ends(planned_at) - opens) // window.width)
        for span in spans:
            began = self._clock.now_ns()
            found = await fetch_buckets(self._getter, resource, span, began / 1e9)
            records = await asyncio.to_thread(query.records, window.width, utc(began), found)
            coverage = coverage.with_span(span, opens)
            after = query.cursor(coverage, utc(began))
            await self._publish(lease, records, after, resource, result)
            lease.cursors[after.key] = after
            self._metrics.missing.labels(resource.name).inc((span.end - span.start) // window.width - len(found))
            self._metrics.settled.labels(resource.name).set(coverage.settled)
            self._metrics.first.labels(resource.name).set(coverage.first)
            self._progress.done(resource.name)

    async def _publish(
        self,
        lease: PollLease,
        records: list[OpenAIRecord],
        cursor: PollCursor | None,
        resource: Resource,
        result: PollResult,
    ) -> None:
        """Publish the buckets that differ from the topic's, and the cursor."""
        changed, restated = [], 0
        for record in records:
            have = lease.index.get(record.key)
            if have is None or have.digest != record.digest:
                changed.append(record)
                restated += have is not None
        await self._publisher.publish(lease.fence, lease.index, changed, cursor)
        result.published += len(changed)
        result.restated += restated
        result.unchanged += len(records) - len(changed)
        self._metrics.published.labels(resource.name).inc(len(changed))
        self._metrics.restated.labels(resource.name).inc(restated)
        self._metrics.unchanged.labels(resource.name).inc(len(records) - len(changed))

    def _now(self) -> float:
        return self._clock.now_ns() / 1e9


@dataclass(frozen=True)
class _Query:
    """One query of a resource, which creates its records and cursors."""

    resource: Resource
    fingerprint: str
    params: Mapping[str, object]
    pseudonym: Callable[[str], str] | None = None

    @property
    def cursor_key(self) -> bytes:
        return keys.join(self.resource.name, self.fingerprint)

    def record(self, bucket: str, span: TimeSpan | None, polled_at: datetime, rows: list[Row]) -> OpenAIRecord:
        rows = without_people(rows, self.pseudonym)
        packed, decimals = exact.pack(rows)
        return OpenAIRecord(
            resource=self.resource.name,
            query=self.fingerprint,
            params=dict(self.params),
            bucket=bucket,
            starts_at=at(span.start) if span else None,
            ends_at=at(span.end) if span else None,
            polled_at=polled_at,
            digest=digest(rows),
            rows=packed,
            decimals=decimals,
        )

    def records(self, width: int, polled_at: datetime, found: Mapping[int, list[Row]]) -> list[OpenAIRecord]:
        """Return the records of the buckets found, oldest first."""
        return [
            self.record(bucket_name(start, width), TimeSpan(start, start + width), polled_at, rows)
            for start, rows in sorted(found.items())
        ]

    def cursor(self, coverage: Coverage, polled_at: datetime) -> PollCursor:
        return PollCursor(
            resource=self.resource.name,
            query=self.fingerprint,
            first=at(coverage.first),
            settled=at(coverage.settled),
            polled_at=polled_at,
        )
