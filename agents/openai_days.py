"""What OpenAI says a day was billed and used, per day, model and project: topic `openai.days` out of `openai.records`.

    newest record of each bucket --> rows of its day, model, project --> BilledDay, when it says something new

A day's rows are a pure function of the newest records of that day (`day_rows`), so nothing is counted and nothing can
be counted twice: reading a record again, or two agents at a time, give the same rows with the same versions. The agent
therefore keeps no state but a view of two topics that it reads from their beginnings, and needs no leader.

Resources are never added to one another; of two queries of one resource (other groupings, an earlier configuration) the
one polled last speaks for the day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from tallystream.schemas import exact, keys
from tallystream.schemas.errors import Unreachable
from tallystream.schemas.openai import OpenAIRecord, cents_to_usd
from tallystream.streams.kafka import KafkaSettings
from tallystream.streams.tail import Recreated, Tail
from tallystream.streams.topics import Topics, ensure

log = structlog.get_logger()
HEADERS = [("schema", b"billed-day/1")]
COSTS, DASHBOARD = "/organization/costs", "/dashboard/billing/usage"
USAGE, LEGACY = "/organization/usage/", "/usage"
LONGEST_PAUSE = 30.0
MAX_COUNT = 2**53

Place = tuple[str | None, str | None]
"""Model and project."""


@dataclass
class Said:
    """What a day's resources say of one model and project; money in dollars."""

    billed: dict[str, Decimal] = field(default_factory=dict)
    used: dict[str, dict[str, int]] = field(default_factory=dict)


def concerns(resource: str) -> bool:
    """Tell whether a resource says what was billed or used."""
    return resource in (COSTS, DASHBOARD, LEGACY) or resource.startswith(USAGE)


def day_of(record: OpenAIRecord) -> str | None:
    """Return the UTC day a record's bucket begins in; None when it has no time."""
    return None if record.starts_at is None else f"{record.starts_at.astimezone(UTC):%Y-%m-%d}"


@dataclass(frozen=True)
class Lines:
    """What a record says: model and project, dollars, counts of each of its rows."""

    resource: str
    query: str
    polled_at: datetime
    lines: list[tuple[Place, Decimal | None, dict[str, int]]]

    @classmethod
    def of(cls, record: OpenAIRecord) -> Lines:
        """Return what a record says.

        Raises:
            ValueError: its rows are not what its resource answers with.

        """
        try:
            lines = list(_lines(record.resource, record.exact_rows()))
        except (KeyError, TypeError, AttributeError, ArithmeticError) as exc:
            raise ValueError(f"a row of {record.resource} has an unknown shape: {exc!r}") from exc
        return cls(record.resource, record.query, record.polled_at, lines)


def day_rows(records: Iterable[Lines]) -> dict[Place, tuple[Said, dict[str, datetime]]]:
    """Return what the newest records of one day say, by model and project, with each resource's newest poll."""
    speaks: dict[str, tuple[datetime, str]] = {}
    found = list(records)
    for record in found:
        polled = (record.polled_at, record.query)
        speaks[record.resource] = max(speaks.get(record.resource, polled), polled)
    rows: dict[Place, tuple[Said, dict[str, datetime]]] = {}
    for record in found:
        resource = record.resource
        if speaks[resource][1] != record.query:
            continue
        for place, dollars, counts in record.lines:
            said, times = rows.setdefault(place, (Said(), {}))
            times[resource] = max(times.get(resource, record.polled_at), record.polled_at)
            if dollars is not None:
                said.billed[resource] = said.billed.get(resource, Decimal(0)) + dollars
            if counts:
                sums = said.used.setdefault(resource, {})
                for name, count in counts.items():
                    sums[name] = min(sums.get(name, 0) + count, MAX_COUNT - 1)
    return rows


def _lines(resource: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Place, Decimal | None, dict[str, int]]]:
    """Yield (model and project, dollars, counts) of a resource's rows."""
    for row in rows:
        if resource == DASHBOARD:
            for item in row.get("line_items") or ():
                yield (_model(item.get("name")), None), cents_to_usd(item["cost"]), {}
        elif resource == COSTS:
            yield (_model(row.get("line_item")), row.get("project_id")), Decimal(row["amount"]["value"]), {}
        else:
            model = row.get("snapshot_id") if resource == LEGACY else row.get("model")
            yield (model or None, row.get("project_id") or None), None, _counts(row)


def _model(line_item: Any) -> str | None:
    """Return the model of a line item: "gpt-5-2025-08-07, cached input" is of gpt-5-2025-08-07; others are of none."""
    name, comma, _ = line_item.partition(", ") if isinstance(line_item, str) else ("", "", "")
    return name if comma and name else None


def _counts(row: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers that add up; times are numbers too, and do not."""
    return {
        name: value
        for name, value in row.items()
        if type(value) is int and 0 <= value < MAX_COUNT and not name.endswith(("timestamp", "_time", "created"))
    }


class Days:
    """The newest records by day, and what their rows are. Pure: records go in, changed rows come out."""

    def __init__(self) -> None:
        self._records: dict[str, dict[bytes, Lines]] = {}
        self._offsets: dict[str, int] = {}
        """By day, the offset of the newest record in its rows: their version."""
        self._rows: dict[bytes, bytes] = {}
        """What the newest version in `openai.days` says, by key."""
        self._versions: dict[bytes, list[int]] = {}
        self._places: dict[str, set[bytes]] = {}
        self._changed: set[str] = set()

    def published(self, key: bytes, value: bytes) -> None:
        """Take in a row of `openai.days`, in the topic's order.

        One that comes after a newer version of itself is an agent's that was paused: compaction would keep it, so the
        newer one is published again.
        """
        row = orjson.loads(value)
        day, version = row["day"], row["version"]
        self._places.setdefault(day, set()).add(key)
        if version < self._versions.get(key, version):
            self._rows.pop(key, None)
            if day in self._records:
                self._changed.add(day)
            return
        self._rows[key], self._versions[key] = _content(row), version

    def record(self, key: bytes, offset: int, record: OpenAIRecord) -> None:
        """Take in a record; one that was polled before the one known changes nothing.

        Raises:
            ValueError: its rows are not what its resource answers with; nothing is changed.

        """
        day = day_of(record)
        if day is None or not concerns(record.resource):
            return
        lines = Lines.of(record)
        have = self._records.setdefault(day, {}).get(key)
        self._offsets[day] = max(self._offsets.get(day, 0), offset)
        if have is None or lines.polled_at >= have.polled_at:
            self._records[day][key] = lines
            self._changed.add(day)

    def take(self) -> list[tuple[bytes, bytes]]:
        """Return the rows that changed since the last time.

        A row of which nothing is said any more is published empty: readers keep the newest version of a key, and a
        removed one would leave them with the old.
        """
        out: list[tuple[bytes, bytes]] = []
        for day in sorted(self._changed):
            rows = dict(self._day(day))
            for key in self._places.get(day, set()) - rows.keys():
                _, model, project = keys.split(key)
                rows[key] = _row(day, model or None, project or None, Said(), {})
            for key, row in rows.items():
                content = _content(row)
                if self._rows.get(key) != content:
                    version = [0, self._offsets[day]]
                    self._rows[key], self._versions[key] = content, version
                    self._places.setdefault(day, set()).add(key)
                    out.append((key, orjson.dumps({**row, "version": version})))
        self._changed.clear()
        return out

    def _day(self, day: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
        for (model, project), (said, polled) in day_rows(self._records[day].values()).items():
            yield keys.join(day, model or "", project or ""), _row(day, model, project, said, polled)


def _row(
    day: str, model: str | None, project: str | None, said: Said, polled: Mapping[str, datetime]
) -> dict[str, Any]:
    return {
        "day": day,
        "model": model,
        "project_id": project,
        "billed": [
            {"resource": resource, "usd": exact.plain(dollars), "polled_at": _iso(polled[resource])}
            for resource, dollars in sorted(said.billed.items())
        ],
        "used": [
            {"resource": resource, "counts": dict(sorted(counts.items())), "polled_at": _iso(polled[resource])}
            for resource, counts in sorted(said.used.items())
        ],
    }


def _content(row: Mapping[str, Any]) -> bytes:
    """Return what a row says. That it was polled again and said the same is nothing new."""
    said = {
        part: [{name: value for name, value in one.items() if name != "polled_at"} for one in row[part]]
        for part in ("billed", "used")
    }
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


class OpenAIDays:
    """The agent: `run` until it is cancelled."""

    def __init__(self, kafka: KafkaSettings, topics: Topics) -> None:
        self._kafka = kafka
        self._topics = topics

    async def run(self) -> None:
        """Keep `openai.days` true.

        Raises:
            Unfit: a topic exists that is not as it must be.

        """
        pause = 1.0
        while True:
            try:
                await self._run()
            except Recreated as exc:
                log.warning("reading_anew", why=str(exc))
            except (Unreachable, KafkaError, OSError) as exc:
                why = exc.message if isinstance(exc, Unreachable) else type(exc).__name__
                log.warning("kafka_away", why=why, retry_in_s=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _run(self) -> None:
        records, rows = self._topics.openai_records.name, self._topics.openai_days.name
        await ensure(self._kafka, (self._topics.openai_records, self._topics.openai_days))
        days = Days()
        producer = AIOKafkaProducer(**self._kafka.client(), acks="all", enable_idempotence=True, linger_ms=5)
        await producer.start()
        try:
            async with Tail(self._kafka, (rows, records), {}) as tail:
                while True:
                    for batch in await tail.poll():
                        for message in batch.records:
                            if message.key and message.value is not None:
                                _apply(days, message, own=batch.topic == rows)
                    if tail.behind:
                        continue
                    changed = days.take()
                    for key, value in changed:
                        await producer.send(rows, value, key=key, headers=HEADERS)
                    if changed:
                        await producer.flush()
                        log.debug("days_published", rows=len(changed))
        finally:
            await producer.stop()


def _apply(days: Days, message: ConsumerRecord, *, own: bool) -> None:
    try:
        if own:
            days.published(message.key, message.value)
        else:
            days.record(message.key, message.offset, OpenAIRecord.model_validate_json(message.value))
    except (ValidationError, ValueError, KeyError, TypeError) as exc:
        log.warning("unreadable_record", topic=message.topic, offset=message.offset, why=str(exc)[:200])
