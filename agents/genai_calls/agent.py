"""The agent that turns what spans saw into usage: table `calls`, its rows the messages and marks of `rows`.

    calls message --CallBatch--> sightings --JoinState--> calls --> `usage`, keyed by session

Promise: a call goes to `usage` under one identity, into one session, whatever ends, pauses or joins. It holds because
what is released depends on nothing but the messages and their append times: a message that is folded again releases
the same, and the fold of `usage` knows the identity. Where no messages come, ticks say that time has passed; they are
messages too.

Relies on a dense source with the broker's append time, as the runtime does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from typing import Any, cast

from faust.types import TP
from mode import Service
from pydantic import ValidationError

from tallystream.agents.genai_calls import rows
from tallystream.agents.genai_calls.join_state import JoinState, Origin, Release
from tallystream.agents.genai_calls.metrics import CallMetrics
from tallystream.schemas import packing, topic_names
from tallystream.schemas.calls import TICK, CallBatch
from tallystream.schemas.clients import Pack
from tallystream.schemas.clients.attribution import with_agent, with_user
from tallystream.schemas.dead_letter_builder import dead_letter
from tallystream.schemas.errors import Reason
from tallystream.streams.gateway.message import partition_of
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime import App, FoldTable, Part, PublicRows, Record
from tallystream.streams.runtime.changelog import POSITION, Position
from tallystream.streams.runtime.faust_backend.producer import Producer
from tallystream.streams.service.clock import Clock, SystemClock, utc

NAME = "calls"
TICK_EVERY = 0.5
"""Seconds between two looks at whether time should pass."""
DAY_MS = rows.DAY_MS
_HEADER = "schema"


@dataclass(frozen=True)
class CallConfig:
    """How long things are held and remembered, in ms."""

    hold_ms: int = 15_000
    """For partners of a call."""
    quiet_ms: int = 600_000
    """Silence after which a trace without a root is taken for closed."""
    lateness_ms: int = 7 * DAY_MS
    """How long after its hour a call may still be counted: for so long its marks are kept."""

    @property
    def memory_ms(self) -> int:
        """How long the sightings themselves are kept."""
        return self.quiet_ms + 2 * self.hold_ms

    @property
    def mark_days(self) -> int:
        """Days that marks are looked for."""
        return self.lateness_ms // DAY_MS + 2


@dataclass
class _Derived:
    """What a partition has beside its rows."""

    state: JoinState
    offset: int = -1
    """Of the message that is being folded."""
    released: list[Release] = field(default_factory=list)
    letters: list[tuple[bytes, bytes]] = field(default_factory=list)
    late: int = 0
    ticked_ms: int = 0


class GenaiCalls(FoldTable):
    """Table `calls`. Every row is immutable, so its state is its bytes."""

    def __init__(
        self,
        app: App,
        topics: Topics,
        config: CallConfig,
        metrics: CallMetrics,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        super().__init__(app, name=NAME, source=topics.calls.name, partitions=topics.partitions, **options)
        self._topics = topics
        self._config = config
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._derived: dict[int, _Derived] = {}

    # -- rows

    def load(self, raw: bytes) -> bytes:
        """Return the row itself."""
        return raw

    def dump(self, state: bytes) -> bytes:
        """Return the row itself."""
        return state

    def version(self, raw: bytes) -> int:
        """Return the offset of the message that made a row."""
        return rows.version_of(raw)

    def closes_before(self, append_ms: int) -> bytes:
        """Return the marker below which messages are forgotten."""
        return rows.watermark(append_ms, self._config.memory_ms)

    def is_closed(self, key: bytes, marker: bytes) -> bool:
        """Tell whether a message or a mark is too old to matter."""
        return rows.is_closed(key, marker, self._config.mark_days)

    def recovered_partition(self, p: int) -> None:
        """Hold again what was held: the messages of the last minutes are taken once more, and release nothing."""
        raw = self.store.read(p, POSITION)
        position = Position(0) if raw is None else Position.decode(raw)
        derived = _Derived(JoinState(self._config.hold_ms, self._config.quiet_ms, lambda _: None, self._marks(p)))
        self._derived[p] = derived
        since = position.append_ms - self._config.memory_ms
        for append_ms, offset, value in rows.batches(self.rows(p), since, position.offset):
            derived.offset = offset
            derived.state.advance(append_ms)
            derived.state.add(*_read(CallBatch.model_validate_json(value)), offset)
        derived.offset = position.offset - 1
        derived.state.advance(position.append_ms)
        derived.state.remember_with(lambda mark: self._mark(p, mark))
        derived.late = derived.state.late

    def lost_partition(self, p: int) -> None:
        """Forget what is held: whoever gets the partition has the rows."""
        self._derived.pop(p, None)

    def _marks(self, p: int) -> Any:
        def is_marked(mark: bytes) -> bool:
            derived = self._derived[p]
            days = self._config.mark_days
            return rows.is_marked(lambda key: self._row(p, key), mark, derived.state.now_ms, derived.offset, days)

        return is_marked

    def _row(self, p: int, key: bytes) -> bytes | None:
        part = self.part(p)
        row: bytes | None = None if part is None else part.cache.get(key)
        return self.store.read(p, key) if row is None else row

    def _mark(self, p: int, mark: bytes) -> None:
        derived, part = self._derived[p], self.part(p)
        assert part is not None
        key, row = rows.mark_row(derived.state.now_ms, derived.offset, mark)
        part.cache[key] = part.dirty[key] = row

    # -- fold

    def fold(self, p: int, part: Part, records: Sequence[Record]) -> None:
        """Let time pass up to each message, then take what it holds."""
        derived = self._derived[p]
        state = derived.state
        for record in records:
            derived.offset = record.offset
            derived.released += state.advance(record.timestamp)
            if record.value is None:
                continue  # a tick
            try:
                origin, sightings = _read(CallBatch.model_validate_json(record.value))
            except ValidationError as exc:
                derived.letters.append(_letter(p, record, exc))
                self._metrics.dead_letters.labels(Reason.INVALID_MESSAGE.value).inc()
                continue
            state.add(origin, sightings, record.offset)
            key, row = rows.batch_row(record.timestamp, record.offset, record.value)
            part.cache[key] = part.dirty[key] = row
            self._metrics.sightings.inc(len(sightings))
        self._metrics.late.inc(state.late - derived.late)
        derived.late = state.late
        self._metrics.held.set(sum(one.state.waiting for one in self._derived.values()))

    def public(
        self,
        p: int,
        states: Mapping[bytes, Any],  # noqa: ARG002 - what leaves is in none of the rows
        version: int,  # noqa: ARG002
    ) -> Sequence[PublicRows]:
        """Return the calls released since the last group, as usage, and the dead letters."""
        derived = self._derived[p]
        released, derived.released = derived.released, []
        letters, derived.letters = derived.letters, []
        for release in released:
            self._metrics.released.labels(release.call.event.get("basis", "call")).inc()
        topic, partitions = self._topics.usage.name, self._topics.partitions
        placed = sorted(
            ((partition_of(key, partitions), key, value) for key, value in _usage(released)), key=lambda row: row[0]
        )
        return (
            *(
                PublicRows(topic, to, [row[1:] for row in found], ((_HEADER, b"usage-batch/1"),))
                for to, found in groupby(placed, key=lambda row: row[0])
            ),
            PublicRows(self._topics.deadletters.name, 0, letters, ((_HEADER, b"dead-letter/1"),)),
        )

    def applied(self) -> dict[TP, int]:
        """Return what is done with, by partition: a message whose calls are held is not, so that the group lags."""
        done = super().applied()
        for tp, offset in done.items():
            derived = self._derived.get(tp.partition)
            waiting = None if derived is None else derived.state.first_waiting()
            if waiting is not None:
                done[tp] = min(offset, waiting)
        return done

    # -- time

    @Service.task
    async def _let_time_pass(self) -> None:
        """Write a tick where something is due and no message comes."""
        while not self.should_stop:
            await self.sleep(TICK_EVERY)
            now_ms = self._clock.now_ns() // 1_000_000
            for p, derived in list(self._derived.items()):
                due = derived.state.next_due_ms()
                if due is not None and due <= now_ms and now_ms - derived.ticked_ms >= 1000 and self._is_idle(p):
                    derived.ticked_ms = now_ms
                    producer = cast(Producer, self.app.producer)
                    await producer.write([producer.pack(self._topics.calls.name, p, [(TICK, None)])])

    def _is_idle(self, p: int) -> bool:
        part = self.part(p)
        end = self.app.source_end(TP(self.source, p))
        return part is not None and (end is None or part.expected >= end)


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


def _letter(p: int, record: Record, exc: ValidationError) -> tuple[bytes, bytes]:
    """Return the dead letter of a message that is no CallBatch: its size, its hash, and the fields that are wrong."""
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
