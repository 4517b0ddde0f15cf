"""The agent that folds usage into what sessions cost: table `session_hours`, topics `cost.session-hours`, `cost.hours`.

    usage message --parse--> events --verdict--> counted in their session-hour (agents.windows), or a dead letter
    session-hours changed since the last group --> rows, partials of the hours (agents.rollups)

The runtime (streams.runtime) sees to it that each message is folded exactly once; here is only what it means.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost import dead_letters, hour_state
from tallystream.agents.session_cost.hour_state import COUNTED, DUPLICATE, GENERATION, REASONS, State, Window, apply
from tallystream.agents.session_cost.hours import HourSums
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.agents.session_cost.parse import Batch, InvalidMessageError, parse
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.hours import HOUR_NS, hour_from_iso, hour_iso
from tallystream.schemas.rows import HourCost, SessionHourCost
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime import App, FoldTable, Part, PublicRows, Record, Version
from tallystream.streams.service.clock import Clock, SystemClock

NAME = "session_hours"
MAX_CACHE_IDS = 1_000_000
"""Event ids in decoded states, over all partitions: about 80 MB, for an id takes 8 bytes in the state and 70 in its
set. States that are not being written are then dropped, and read from the store when they are needed again."""
STATE_IDS = 30
"""What a decoded state weighs beside its ids."""
_ROW_HEADERS, _HOUR_HEADERS, _LETTER_HEADERS = (
    tuple(schema_of(model).headers) for model in (SessionHourCost, HourCost, DeadLetter)
)


@dataclass
class Derived:
    """What a partition has beside its rows: all of it is lost with the partition and made again."""

    hours: HourSums
    letters: list[dead_letters.Row]
    weight: int = 0
    """Event ids in the cached states, STATE_IDS for each state."""
    newest: tuple[int, int] | None = None
    """Append time (ms) and event time (ns) of the newest message folded and in no group yet."""
    sent: tuple[int, float, tuple[int, int] | None] | None = None
    """Version, monotonic time and `newest` of the group that is being written."""
    marker: bytes | None = None
    closed_hour: int = 0
    """The first hour that `marker` does not close."""


class SessionCost(FoldTable):
    """Table `session_hours`: key `connection|session|hour`, value a state of agents.windows.

    `window` says how late an event may come, `book` what it costs.
    """

    def __init__(
        self,
        app: App,
        topics: Topics,
        book: Book,
        window: Window,
        metrics: FoldMetrics,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        super().__init__(app, name=NAME, source=topics.usage.name, partitions=topics.partitions, **options)
        self._topics = topics
        self.owned_topics = (topics.session_hour_rows.name, topics.hour_rows.name)
        self.derived_topics = (topics.hour_rows.name,)
        self._book = book
        self._window = window
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._log = structlog.get_logger("session_cost")
        self._derived: dict[int, Derived] = {}
        self._iso: dict[int, str] = {}

    # -- states

    def load(self, raw: bytes) -> State:
        """Return the state a row holds."""
        return hour_state.load(raw)

    def dump(self, state: State) -> bytes:
        """Return the row of a state."""
        return hour_state.dump(state)

    def version(self, raw: bytes) -> int:
        """Return the offset of the last message in a row."""
        return hour_state.version_of(raw)

    def closes_before(self, append_ms: int) -> bytes:
        """Return the marker: hours that no message appended from now on may change."""
        return self._window.marker(append_ms)

    def is_closed(self, key: bytes, marker: bytes) -> bool:
        """Tell whether the key's hour is before the marker."""
        return key.rpartition(b"|")[2] < marker

    def recovered_partition(self, p: int) -> None:
        """Add up the hours."""
        hours = HourSums(p)
        hours.rebuild((key, hour_state.load_buckets(raw)) for key, raw in self.rows(p))
        self._derived[p] = Derived(hours, [])

    def lost_partition(self, p: int) -> None:
        """Forget what is not acknowledged."""
        self._derived.pop(p, None)

    # -- fold

    def fold(self, p: int, part: Part, records: Sequence[Record]) -> None:
        """Count the events of the messages."""
        derived = self._derived[p]
        if part.closed != derived.marker:
            derived.marker = part.closed
            derived.closed_hour = hour_from_iso(part.closed.decode()) if part.closed else 0
        counted = copies = late = 0
        for record in records:
            try:
                batch = parse(record.key, record.value)
            except InvalidMessageError as exc:
                letter = dead_letters.invalid_message(p, record.offset, record.timestamp, record.value, exc.message)
                self._refuse(derived, Reason.INVALID_MESSAGE, letter)
                continue
            if batch.bad:
                for index, detail in batch.bad:
                    letter = dead_letters.invalid_message(
                        p, record.offset, record.timestamp, record.value, detail, index
                    )
                    self._refuse(derived, Reason.INVALID_MESSAGE, letter)
            if batch.events:
                tally = self._count(p, part, derived, record, batch)
                counted += tally[0]
                copies += tally[1]
                late += tally[2]
        metrics = self._metrics
        metrics.events.inc(counted)
        metrics.duplicates.inc(copies)
        metrics.late.inc(late)

    def _count(self, p: int, part: Part, derived: Derived, record: Record, batch: Batch) -> tuple[int, int, int]:
        """Count the events of one message; return how many were counted, copies, and counted late."""
        offset, append_ms = record.offset, record.timestamp
        window, price, book = self._window, self._book.price, self._book.hash
        provider, attribution, events = batch.provider, batch.attribution, batch.events
        future = window.future_ns(append_ms)
        prefix = (record.key or b"") + b"|"  # `parse` has seen to it that the key is connection|session
        touched: dict[bytes, State] = {}
        state: State | None = None
        reason: Reason | None = None
        late, last = False, None
        counted = copies = lates = 0
        for event in events:
            at = event[1]
            hour = at // HOUR_NS
            if hour != last or at >= future:
                reason = window.verdict(at, hour, append_ms, derived.closed_hour)
                last = None if reason is Reason.FROM_THE_FUTURE else hour
                if reason is Reason.CLOSED and offset < part.settled:
                    reason, state = None, None  # seen again: it was counted or refused before its hour was closed
                elif reason is None:
                    late = hour_state.is_late(hour, append_ms)
                    key = prefix + self._hour(hour)
                    state = self._state(p, part, derived, key, batch)
                    if state.version >= offset:
                        state = None
                    else:
                        touched[key] = state
            if reason is not None:
                self._refuse(
                    derived, reason, dead_letters.refused_event(p, offset, append_ms, batch, event[13], reason)
                )
                continue
            if state is None:
                continue  # this message is in the row already
            cost = price(
                provider,
                event[2],
                event[3],
                at,
                event[5] + event[11],  # Gemini bills the prompt tokens of its tools as input
                event[6],
                event[7],
                event[8],
                event[9],
                speed=event[4],
            )
            outcome = apply(state, event, cost, book, attribution, late)
            if outcome is COUNTED:
                counted += 1
                lates += late
                if cost is None:
                    self._unpriced(provider, event[2], event[3], event[4])
            elif outcome is DUPLICATE:
                copies += 1
            else:
                refused = REASONS[outcome]
                self._refuse(
                    derived, refused, dead_letters.refused_event(p, offset, append_ms, batch, event[13], refused)
                )
        for state in touched.values():
            state.version = offset
        part.dirty.update(touched)
        derived.weight += len(events)
        derived.newest = (append_ms, events[-1][1])
        return counted, copies, lates

    def _hour(self, hour: int) -> bytes:
        iso = self._iso.get(hour)
        if iso is None:
            if len(self._iso) > 10_000:
                self._iso.clear()
            iso = self._iso[hour] = hour_iso(hour)
        return iso.encode()

    def _state(self, p: int, part: Part, derived: Derived, key: bytes, batch: Batch) -> State:
        state: State | None = part.cache.get(key)
        if state is None:
            raw = self.store.read(p, key)
            state = State(batch.client, batch.provider) if raw is None else hour_state.load(raw)
            part.cache[key] = state
            derived.weight += STATE_IDS + len(state.ids)
        return state

    def _refuse(self, derived: Derived, reason: Reason, letter: dead_letters.Row) -> None:
        derived.letters.append(letter)
        self._metrics.dead_letters.labels(reason.value).inc()

    def _unpriced(self, provider: str, model: str, tier: str | None, speed: str | None) -> None:
        if self._metrics.count_unpriced(provider, model, tier or speed or ""):
            why = self._book.why_unpriced(provider, model, tier, speed)
            self._log.warning("unpriced", provider=provider, model=model, tier=tier, speed=speed, why=why)

    # -- what leaves

    def public(self, p: int, states: Mapping[bytes, State], version: int) -> Sequence[PublicRows]:
        """Return the rows of the changed session-hours, the partials of their hours, and the dead letters."""
        derived, part = self._derived[p], self.part(p)
        assert part is not None
        rows = [(key, hour_state.to_row(key, state)) for key, state in states.items()]
        derived.hours.carry(states)
        hours = derived.hours.take(version, part.closed)
        refused, derived.letters = derived.letters, []
        derived.sent, derived.newest = (version, self._clock.monotonic(), derived.newest), None
        self._trim(part, derived, states)
        self._metrics.rows.labels("session_hours").inc(len(rows))
        self._metrics.rows.labels("hours").inc(len(hours))
        topics = self._topics
        return (
            PublicRows(topics.session_hour_rows.name, p, rows, _ROW_HEADERS),
            PublicRows(topics.hour_rows.name, p, hours, _HOUR_HEADERS),
            PublicRows(topics.deadletters.name, 0, refused, _LETTER_HEADERS),
        )

    def newest(self, p: int, topic: str, key: bytes) -> Version | None:
        """Return the version of what was written last; None for hours that are closed: their states may be gone."""
        if topic == self._topics.hour_rows.name:
            return self._derived[p].hours.emitted.get(key)
        part = self.part(p)
        if part is None or (part.closed is not None and self.is_closed(key, part.closed)):
            return None
        raw = self.store.read(p, key)
        return None if raw is None else (GENERATION, hour_state.version_of(raw))

    def row_version(self, topic: str, row: bytes | None) -> Version:  # noqa: ARG002 - both have it alike
        """Return `version` of a row."""
        return hour_state.row_version(row)

    def rewrite(self, p: int, part: Part, topic: str, keys: Collection[bytes]) -> None:
        """Write session-hours, or partials of hours, again."""
        derived = self._derived[p]
        if topic == self._topics.hour_rows.name:
            derived.hours.again(keys)
            return
        for key in keys:
            state, raw = part.cache.get(key), self.store.read(p, key)
            if state is None and raw is not None:  # a tombstone may have come meanwhile
                state = hour_state.load(raw)
                derived.weight += STATE_IDS + len(state.ids)
            if state is not None:
                part.cache[key] = part.dirty[key] = state

    def _trim(self, part: Part, derived: Derived, states: Mapping[bytes, State]) -> None:
        """Bound the decoded states. At this moment all but `states` are in the store: a group follows the other."""
        if sum(one.weight for one in self._derived.values()) > MAX_CACHE_IDS:
            part.cache = dict(states)
            derived.weight = sum(STATE_IDS + len(state.ids) for state in states.values())

    def moved(self) -> None:
        """Note that work goes on, and of each group that has been acknowledged since how long it took."""
        super().moved()
        for p, derived in self._derived.items():
            if derived.sent is None:
                continue
            version, since, newest = derived.sent
            part = self.part(p)
            if part is not None and part.applied.offset > version:
                derived.sent = None
                self._metrics.commit.observe(self._clock.monotonic() - since)
                if newest is not None:
                    now = self._clock.now_ns()
                    self._metrics.append_to_row.observe(max(0.0, now / 1e9 - newest[0] / 1e3))
                    self._metrics.event_to_row.observe(max(0.0, (now - newest[1]) / 1e9))
