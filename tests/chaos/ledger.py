"""Reads all topics of a deployment, for the laws that they must obey together (`laws`).

Independent of the fold: a session-hour is a dict of the events in `usage`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiokafka import ConsumerRecord

from tallystream.agents.session_cost import state_rows
from tallystream.agents.session_cost.correction import HEADER
from tallystream.schemas import keys
from tallystream.schemas.corrections import PriceCorrection
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.hours import HOUR_NS, hour_iso
from tallystream.schemas.usage import UsageBatch
from tallystream.streams.kafka.reader import TopicReader
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime.changelog import POSITION, WATERMARK, Position, Watermark, reserved

COUNTS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "tool")
BucketKey = tuple[str, str | None, str | None, str]
"""model, service_tier, speed, attribution (canonical JSON)."""
CLOCK_JUMP = 6 * 3600.0
"""Seconds between a message and its row that can only be due to a jump of the broker's clock."""
Row = tuple[int, float, int]
"""Version, seconds of its timestamp, offset."""


@dataclass
class Hour:
    """One session-hour, computed from `usage`."""

    events: dict[str, tuple[BucketKey, tuple[int, ...]]] = field(default_factory=dict)
    copies: int = 0

    def buckets(self) -> dict[BucketKey, list[int]]:
        """Return requests and counts by bucket."""
        sums: dict[BucketKey, list[int]] = {}
        for bucket, counts in self.events.values():
            total = sums.setdefault(bucket, [0] * (1 + len(COUNTS)))
            total[0] += 1
            for index, count in enumerate(counts, 1):
                total[index] += count
        return sums


@dataclass
class Ledger:
    """The topics, read once. `usage` lists (offset, append time in s, keys touched) by partition."""

    hours: dict[bytes, Hour] = field(default_factory=lambda: defaultdict(Hour))
    usage: dict[int, list[tuple[int, float, tuple[bytes, ...]]]] = field(default_factory=lambda: defaultdict(list))
    letters: dict[str, DeadLetter] = field(default_factory=dict)
    rows: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    last_rows: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    row_log: dict[bytes, list[Row]] = field(default_factory=lambda: defaultdict(list))
    """All public rows of a key, in offset order."""
    changelog: dict[bytes, bytes] = field(default_factory=dict)
    last_changelog: dict[bytes, bytes] = field(default_factory=dict)
    parts: dict[bytes, bytes] = field(default_factory=dict)
    """Rows of session-hours besides their heads: blocks of event ids, and descriptions of buckets."""
    changelog_log: dict[bytes, list[Row]] = field(default_factory=lambda: defaultdict(list))
    positions: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """(changelog offset, position) by partition."""
    closed: bytes = b""
    """The highest watermark: session-hours before it may be gone from the changelog."""
    hour_rows: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    last_hour_rows: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    """events, copies, letters, corrections, garbage."""
    problems: list[str] = field(default_factory=list)
    poison: set[str] = field(default_factory=set)
    corrections: set[str] = field(default_factory=set)
    """The sources that dead letters of price corrections have."""


async def records(kafka: KafkaSettings, topic: str) -> AsyncIterator[tuple[int, ConsumerRecord]]:
    """Yield (partition, record) of a topic up to its end as it is now."""
    async with TopicReader(kafka, topic) as reader, aclosing(reader.batches()) as batches:
        async for batch in batches:
            for record in batch.records:
                yield batch.partition, record


async def read(kafka: KafkaSettings, topics: Topics) -> Ledger:
    """Read everything."""
    ledger = Ledger()
    async for _, record in records(kafka, topics.deadletters.name):
        _letter(ledger, record)
    async for p, record in records(kafka, topics.usage.name):
        _usage(ledger, p, record)
    async for _, record in records(kafka, topics.session_hour_rows.name):
        _row(ledger, record)
    async for p, record in records(kafka, topics.session_hours_changelog.name):
        _changelog(ledger, p, record)
    async for _, record in records(kafka, topics.hour_rows.name):
        row = _json(ledger, record)
        if row and "partition" in row:
            newest = ledger.hour_rows.get(record.key)
            if newest is None or row["version"] >= newest["version"]:
                ledger.hour_rows[record.key] = row
            ledger.last_hour_rows[record.key] = row
    return ledger


def _json(ledger: Ledger, record: ConsumerRecord) -> dict[str, Any]:
    try:
        row = orjson.loads(record.value or b"null")
    except orjson.JSONDecodeError:
        row = None
    if not isinstance(row, dict) or "version" not in row:
        ledger.counted["garbage"] += 1
        return {}
    return row


def _letter(ledger: Ledger, record: ConsumerRecord) -> None:
    try:
        letter = DeadLetter.model_validate_json(record.value or b"")
    except ValueError:
        ledger.counted["garbage"] += 1
        return
    ledger.letters[letter.source] = letter


def _correction(ledger: Ledger, p: int, record: ConsumerRecord) -> None:
    """Note a price correction: it changes its row unless there is a dead letter of it, and never what is counted."""
    correction = PriceCorrection.model_validate_json(record.value or b"")
    source = f"usage|{p}|{record.offset}|0"
    ledger.corrections.add(source)
    touched = () if source in ledger.letters else (record.key + b"|" + correction.hour.encode(),)
    ledger.counted["corrections"] += len(touched)
    ledger.usage[p].append((record.offset, record.timestamp / 1000, touched))


def _usage(ledger: Ledger, p: int, record: ConsumerRecord) -> None:
    if HEADER in record.headers:
        _correction(ledger, p, record)
        return
    try:
        batch = UsageBatch.model_validate_json(record.value or b"")
        misplaced = record.key != keys.join(batch.connection_id, batch.session_id)
    except ValueError:
        misplaced = True
    if misplaced:
        ledger.poison.add(f"usage|{p}|{record.offset}|0")
        ledger.usage[p].append((record.offset, record.timestamp / 1000, ()))
        return
    attribution = orjson.dumps(
        {k: v for k, v in batch.attribution.model_dump().items() if v}, option=orjson.OPT_SORT_KEYS
    )
    touched = []
    for index, event in enumerate(batch.events):
        ledger.counted["events"] += 1
        if f"usage|{p}|{record.offset}|{index}" in ledger.letters:
            ledger.counted["letters"] += 1
            continue
        key = record.key + b"|" + hour_iso(event.occurred_at // HOUR_NS).encode()
        touched.append(key)
        hour = ledger.hours[key]
        if event.event_id in hour.events:
            hour.copies += 1
            ledger.counted["copies"] += 1
            continue
        bucket = (event.model, event.service_tier or None, event.speed or None, attribution.decode())
        hour.events[event.event_id] = (bucket, tuple(getattr(event, name) for name in COUNTS))
    ledger.usage[p].append((record.offset, record.timestamp / 1000, tuple(dict.fromkeys(touched))))


def _row(ledger: Ledger, record: ConsumerRecord) -> None:
    row = _json(ledger, record)
    if not row or "buckets" not in row:
        return
    ledger.row_log[record.key].append((row["version"][1], record.timestamp / 1000, record.offset))
    newest = ledger.rows.get(record.key)
    if newest is None or row["version"] >= newest["version"]:
        ledger.rows[record.key] = row
    ledger.last_rows[record.key] = row


def _changelog(ledger: Ledger, p: int, record: ConsumerRecord) -> None:
    key, value = record.key, record.value
    if key == POSITION:
        ledger.positions[p].append((record.offset, Position.decode(value).offset))
    if key == WATERMARK:
        ledger.closed = max(ledger.closed, Watermark.decode(value).value)
    if key is None or reserved(key):
        return
    if not state_rows.is_head(key):
        if value is None:
            ledger.parts.pop(key, None)
        else:
            ledger.parts[key] = value
        return
    if value is None:
        ledger.changelog.pop(key, None)
        ledger.last_changelog.pop(key, None)
        return
    try:
        version = state_rows.version_of(value)
        state_rows.load_buckets(key, value, ledger.parts.get)
    except Exception:
        ledger.counted["garbage"] += 1
        return
    ledger.changelog_log[key].append((version, record.timestamp / 1000, record.offset))
    old = ledger.changelog.get(key)
    if old is None or version >= state_rows.version_of(old):
        ledger.changelog[key] = value
    ledger.last_changelog[key] = value


def freshness(ledger: Ledger, since: float, until: float) -> list[float]:
    """Return, for messages appended in that time, the seconds until the first row that includes them.

    Both are the broker's times, so messages between which its clock has jumped are left out.
    """
    found = []
    for log in ledger.usage.values():
        for offset, appended, touched in log:
            if since <= appended < until and touched:
                rows = ledger.row_log.get(touched[0], [])
                at = next((ts for version, ts, _ in rows if version >= offset), None)
                if at is not None and abs(at - appended) < CLOCK_JUMP:
                    found.append(max(0.0, at - appended))
    return found
