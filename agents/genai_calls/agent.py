"""The agent that turns sightings in spans into usage: table `calls`, whose rows are the messages and marks of `rows`.

    calls message --CallBatch--> sightings --JoinState--> calls --> `usage`, keyed by session

Promise: a call goes to `usage` under one identity, into one session, whatever ends, pauses or joins. It holds because
the released calls depend only on the messages and their append times: a message that is folded again releases the same
calls, and the fold of `usage` recognises their identity. Without messages, ticks show that time has passed; they are
messages too.

Relies on a dense source with the broker's append time, as the runtime does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Any

from pydantic import ValidationError
from typing_extensions import override

from tallystream.agents.genai_calls import rows
from tallystream.agents.genai_calls.join_state import COUNTS, Conflict, JoinState, Origin, Release
from tallystream.agents.genai_calls.metrics import CallMetrics
from tallystream.schemas import packing, topic_names
from tallystream.schemas.calls import TICK, CallBatch
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.clients import Pack
from tallystream.schemas.clients.attribution import with_agent, with_user
from tallystream.schemas.clients.genai import Sighting
from tallystream.schemas.dead_letter_builder import dead_letter
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.usage import UsageBatch
from tallystream.streams.kafka.partitioning import partition_of
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime import Fold, Group, InputRecord, Partition, PublicRows
from tallystream.streams.runtime.changelog import Row
from tallystream.streams.service.clock import Clock, SystemClock, utc

NAME = "calls"
DAY_MS = rows.DAY_MS
_USAGE_HEADERS = (("schema", schema_of(UsageBatch).header),)
_LETTER_HEADERS = (("schema", schema_of(DeadLetter).header),)


@dataclass(frozen=True)
class CallConfig:
    """Durations in ms for holding and remembering sightings."""

    hold_ms: int = 15_000
    """How long a call waits for other sightings of it."""
    quiet_ms: int = 600_000
    """Silence after which a trace without a root counts as closed."""
    lateness_ms: int = 7 * DAY_MS
    """How long after its hour a call may still be counted; its marks are kept for so long."""

    @property
    def memory_ms(self) -> int:
        """How long the sightings themselves are kept."""
        return self.quiet_ms + 2 * self.hold_ms

    @property
    def mark_days(self) -> int:
        """Number of days whose marks are searched."""
        return self.lateness_ms // DAY_MS + 2


@dataclass
class _Derived:
    """The in-memory state of a partition besides its rows."""

    state: JoinState
    offset: int = -1
    """Offset of the message that is being folded."""
    released: list[Release] = field(default_factory=list)
    letters: list[tuple[bytes, bytes]] = field(default_factory=list)
    late: int = 0
    marked_days: set[int] = field(default_factory=set)
    """Days of append time that have marks."""


class GenaiCalls(Fold):
    """Table `calls`. Every row is immutable, so its state is its bytes."""

    def __init__(self, topics: Topics, config: CallConfig, metrics: CallMetrics, clock: Clock | None = None) -> None:
        self.name = NAME
        self._topics = topics
        self._config = config
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._derived: dict[int, _Derived] = {}

    # -- rows

    def version(self, raw: bytes) -> int:
        """Return the offset of the message that made a row."""
        return rows.version_of(raw)

    def watermark(self, append_ms: int) -> bytes:
        """Return the watermark below which messages are forgotten."""
        return rows.watermark(append_ms, self._config.memory_ms)

    def is_closed(self, key: bytes, watermark: bytes) -> bool:
        """Tell whether a message or a mark is too old to be relevant."""
        return rows.is_closed(key, watermark, self._config.mark_days)

    def recovered(self, partition: Partition) -> None:
        """Restore the held sightings by replaying the messages of the last minutes, without releasing calls again."""
        position = partition.applied
        is_marked = partial(self._is_marked, partition)
        state = JoinState(self._config.hold_ms, self._config.quiet_ms, lambda _: None, is_marked)
        derived = self._derived[partition.number] = _Derived(state)
        since = position.append_ms - self._config.memory_ms
        stored = rows.read_all(partition.rows(self.is_closed), since, position.offset)
        derived.marked_days = stored.marked_days
        for append_ms, offset, value in stored.batches:
            derived.offset = offset
            state.advance(append_ms)
            state.add(*_read(CallBatch.model_validate_json(value)), offset)
        derived.offset = position.offset - 1
        state.advance(position.append_ms)
        state.remember_with(partial(self._mark, partition))
        state.conflicts.clear()  # their letters went out with their messages
        derived.late = state.late

    def lost(self, number: int) -> None:
        """Forget the held sightings; the partition's next owner restores them from the rows."""
        self._derived.pop(number, None)

    @override
    def rewrite(self, partition: Partition, topic: str, keys: Collection[bytes]) -> None:
        """Write rows again as they are."""
        for key in keys:
            row = partition.cache.get(key) or partition.stored(key)
            if row is not None:
                partition.cache[key] = partition.dirty[key] = row

    def _is_marked(self, partition: Partition, mark: bytes) -> bool:
        derived = self._derived[partition.number]

        def read(key: bytes) -> bytes | None:
            return partition.cache.get(key) or partition.stored(key)

        now, days = derived.state.now_ms, self._config.mark_days
        return rows.is_marked(read, mark, now, derived.offset, days, derived.marked_days)

    def _mark(self, partition: Partition, mark: bytes) -> None:
        derived = self._derived[partition.number]
        key, row = rows.mark_row(derived.state.now_ms, derived.offset, mark)
        derived.marked_days.add(derived.state.now_ms // rows.DAY_MS)
        partition.cache[key] = partition.dirty[key] = row

    # -- fold

    def fold(self, partition: Partition, records: Sequence[InputRecord]) -> None:
        """For each message, let time pass up to its append time, then add its sightings."""
        derived = self._derived[partition.number]
        state = derived.state
        for record in records:
            derived.offset = record.offset
            derived.released += state.advance(record.timestamp)
            if record.value is None:
                continue  # a tick
            try:
                origin, sightings = _read(CallBatch.model_validate_json(record.value))
            except ValidationError as exc:
                derived.letters.append(_letter(partition.number, record, exc))
                self._metrics.dead_letters.labels(Reason.INVALID_MESSAGE.value).inc()
                continue
            state.add(origin, sightings, record.offset)
            for conflict in state.conflicts:
                derived.letters.append(_conflicting(partition.number, record, conflict))
                self._metrics.dead_letters.labels(Reason.CONFLICTING_COUNTS.value).inc()
            state.conflicts.clear()
            key, row = rows.batch_row(record.timestamp, record.offset, record.value)
            partition.cache[key] = partition.dirty[key] = row
            self._metrics.sightings.inc(len(sightings))
        self._metrics.late.inc(state.late - derived.late)
        derived.late = state.late
        self._metrics.held.set(sum(one.state.waiting for one in self._derived.values()))

    @override
    def group(self, partition: Partition, states: Mapping[bytes, Any], version: int) -> Group:
        """Return the new rows, the calls released since the last group as usage, and the dead letters."""
        derived = self._derived[partition.number]
        released, derived.released = derived.released, []
        letters, derived.letters = derived.letters, []
        for release in released:
            self._metrics.released.labels(release.call.event.get("basis", "call")).inc()
        topic, partitions = self._topics.usage.name, self._topics.partitions
        placed = [(partition_of(key, partitions), key, value) for key, value in _usage(released)]
        placed.sort(key=itemgetter(0))
        public = [
            PublicRows(topic, to, [(key, value) for _, key, value in found], _USAGE_HEADERS)
            for to, found in groupby(placed, key=itemgetter(0))
        ]
        public.append(PublicRows(self._topics.deadletters.name, 0, letters, _LETTER_HEADERS))
        return Group(list(states.items()), public)

    # -- time

    def finished(self, partition: Partition) -> int:
        """Return the position before the oldest message with a call that is held."""
        waiting = self._derived[partition.number].state.first_waiting()
        return partition.applied.offset if waiting is None else min(waiting, partition.applied.offset)

    def nudges(self, partition: Partition) -> Sequence[Row]:
        """Return a tick if something is due but no message has arrived to advance the time."""
        due = self._derived[partition.number].state.next_due_ms()
        return () if due is None or due > self._clock.now_ns() // 1_000_000 else [(TICK, None)]


def _read(batch: CallBatch) -> tuple[Origin, Any]:
    attribution = {name: text for name, text in batch.attribution.model_dump().items() if text}
    return Origin(batch.connection_id, attribution), batch.sightings


def _usage(released: Iterable[Release]) -> Iterator[tuple[bytes, bytes]]:
    """Return (key, value) of the `usage` messages of calls, those of one session and attribution together."""
    packs: dict[tuple[Any, ...], tuple[str, Pack]] = {}
    for release in released:
        call, owner = release.call, release.origins[0]
        attribution: dict[str, str] = {}
        for origin in reversed(release.origins):
            attribution |= origin.attribution
        attribution = with_agent(with_user(attribution, call.user), call.agent)
        key = (owner.connection_id, call.client, call.provider, call.session_id, *sorted(attribution.items()))
        if key not in packs:
            pack = Pack(call.client, call.provider, call.session_id, attribution, [])
            packs[key] = (owner.connection_id, pack)
        packs[key][1].events.append(call.event)
    for connection_id, pack in packs.values():
        yield from packing.messages(pack, connection_id, lambda user: user)


def _conflicting(p: int, record: InputRecord, conflict: Conflict) -> tuple[bytes, bytes]:
    """Return the dead letter of a span that was told twice with different counts: it holds both."""
    counted, other = conflict.counted, conflict.other
    tokens, fewer = ((one.input or 0) + (one.output or 0) for one in (counted, other))
    return dead_letter(
        (topic_names.CALLS, str(p), str(record.offset), str(conflict.place)),
        Reason.CONFLICTING_COUNTS,
        f"two records of one span: {tokens} tokens counted, the other says {fewer}",
        utc(record.timestamp * 1_000_000),
        connection_id=conflict.connection_id,
        client=counted.client,
        session_id=counted.session,
        record={"counted": _counts(counted), "other": _counts(other)},
    )


def _counts(seen: Sighting) -> dict[str, Any]:
    return {name: value for name, value in seen.to_wire().items() if name in _SHOWN}


_SHOWN = frozenset(("trace_id", "span_id", "response_model", *COUNTS))


def _letter(p: int, record: InputRecord, exc: ValidationError) -> tuple[bytes, bytes]:
    """Return the dead letter of a message that is not a CallBatch: its size, its hash, and the invalid fields."""
    where = sorted({".".join(str(part) for part in error["loc"]) or "the message" for error in exc.errors()})[:5]
    raw = record.value or b""
    return dead_letter(
        (topic_names.CALLS, str(p), str(record.offset), "0"),
        Reason.INVALID_MESSAGE,
        f"the message is not a CallBatch: {', '.join(where)}",
        utc(record.timestamp * 1_000_000),
        size=len(raw),
        sha256=sha256(raw).hexdigest(),
    )
