"""The fold itself: counts the messages of a batch in the states of their session-hours, or makes dead letters of them.

    batch --> runs of one session (runs) -----> counted hour by hour, many messages at once
          --> ordinary messages (ordinary) ---> counted as a whole
          --> all others (parse) -------------> counted event by event (hour_state)
          --> price corrections (correction) -> costs of a session-hour moved to another book

Each takes what the one before it left, and a property test holds the first two to the third. These loops over messages
stay interpreted in the compiled form, or they would hold up the thread that fetches the next batches (setup.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import structlog
from typing_extensions import override

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost import dead_letters, hour_state, ordinary, state_rows
from tallystream.agents.session_cost.correction import CHANGED, HEADER, correct, parse_correction
from tallystream.agents.session_cost.counted import IDS_OF_COUNTS
from tallystream.agents.session_cost.derived import STATE_IDS, Derived
from tallystream.agents.session_cost.errors import InvalidMessageError
from tallystream.agents.session_cost.hour_state import (
    CONFLICT,
    COUNTED,
    DUPLICATE,
    REASONS,
    REPLACED,
    State,
    Window,
    apply,
)
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.agents.session_cost.parse import Head, ParsedBatch, parse, parse_events, price
from tallystream.agents.session_cost.runs import MIN_RUN, Tally, common_bounds, count_run, parts
from tallystream.agents.session_cost.session_states import CountedAt
from tallystream.schemas.errors import Reason
from tallystream.schemas.hours import HOUR_NS, hour_from_iso, hour_iso
from tallystream.streams.runtime import Fold, InputRecord, Partition


class MessageFold(Fold):
    """The part of `SessionCost` that folds messages; the other one adds and removes the `Derived` of each partition."""

    def __init__(self, book: Book, window: Window, metrics: FoldMetrics) -> None:
        self._book = book
        self._window = window
        self._metrics = metrics
        self._log = structlog.get_logger("session_cost")
        self._derived: dict[int, Derived] = {}

    @override
    def fold(self, partition: Partition, records: Sequence[InputRecord]) -> None:
        """Count the events of the messages, session by session: those of one are all that its states depend on."""
        derived = self._derived[partition.number]
        if partition.watermark != derived.watermark:
            derived.close(partition.watermark)
        tallies: list[Tally] = []
        bounds = common_bounds(derived, records) if len(records) > 1 else None
        if bounds is None:
            self._fold_singly(partition, derived, records, tallies)
        else:
            runs: dict[bytes | None, list[InputRecord]] = {}
            for record in records:
                runs.setdefault(record.key, []).append(record)
            for run in chain.from_iterable(map(parts, runs.values())):
                left: Sequence[InputRecord] = run
                if len(run) >= MIN_RUN:
                    session = derived.known.session(run[0].key, run[0].value)
                    if session is not None and session.ids_of_counts:
                        left = count_run(partition, derived, session, run, bounds, self._book, self._state, tallies)
                self._fold_singly(partition, derived, left, tallies)
        metrics = self._metrics
        if tallies:
            counters = (metrics.events, metrics.duplicates, metrics.late)
            for counter, numbers in zip(counters, zip(*tallies, strict=True), strict=True):
                counter.inc(sum(numbers))

    def _fold_singly(
        self, partition: Partition, derived: Derived, records: Sequence[InputRecord], tallies: list[Tally]
    ) -> None:
        """Count the events of the messages one after the other."""
        p = partition.number
        split, book = derived.known.split, self._book
        for record in records:
            if HEADER in record.headers:
                self._correct(partition, derived, record)
                continue
            found = split(record.key, record.value)
            if found is not None and found[0].ids_of_counts:
                tally = ordinary.count(partition, derived, record, *found, book, self._state)
                if tally is not None:
                    tallies.append(tally)
                    continue
            try:
                batch = parse_events(found[0].head, found[1]) if found else parse(record.key, record.value)
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
                tallies.append(self._count(partition, derived, record, batch))

    def _correct(self, partition: Partition, derived: Derived, record: InputRecord) -> None:
        """Apply a price correction, or make a dead letter of it."""
        p, offset, append_ms = partition.number, record.offset, record.timestamp
        version = partition.version(offset)
        try:
            correction = parse_correction(record.key, record.value)
        except InvalidMessageError as exc:
            letter = dead_letters.invalid_message(p, offset, append_ms, record.value, exc.message)
            self._refuse(derived, Reason.INVALID_MESSAGE, letter)
            return
        hour = hour_from_iso(correction.hour)
        reason = self._window.verdict(hour * HOUR_NS, hour, append_ms, derived.closed_hour)
        if reason is Reason.CLOSED and version < partition.settled:
            return  # a repetition: it was applied or refused before its hour was closed
        key = (record.key or b"") + b"|" + correction.hour.encode()
        state = self._stored_state(partition, derived, key) if reason is None else None
        if state is None:
            why: str | None = CHANGED if reason is None else dead_letters.DETAILS[reason]
        elif state.version >= version:
            return  # this message is in the row
        elif (why := correct(state, correction)) is None:
            state.version = state.repriced = version
            partition.dirty[key] = state
            self._metrics.corrections.inc()
        if why is not None:
            letter = dead_letters.refused_correction(p, offset, append_ms, correction, why)
            self._refuse(derived, Reason.REPRICE_REFUSED, letter)

    def _count(
        self, partition: Partition, derived: Derived, record: InputRecord, batch: ParsedBatch
    ) -> tuple[int, int, int]:
        """Count the events of one message; return how many were counted, copies, and counted late."""
        p, offset, append_ms = partition.number, record.offset, record.timestamp
        version = partition.version(offset)
        window, book, book_hash = self._window, self._book, self._book.hash
        provider, attribution, events = batch.provider, batch.attribution, batch.events
        future = window.future_ns(append_ms)
        prefix = (record.key or b"") + b"|"  # `parse` has checked that the key is connection|session
        # An event of an open hour is found in a closed one only if this message is repeated.
        closed_keys = prefix + hour_iso(derived.closed_hour).encode()
        touched: dict[bytes, State] = {}
        own: State | None = None
        reason: Reason | None = None
        late, last, own_key = False, None, b""
        # Codex and Gemini send no request ids: records with different times are different requests.
        session_hours = None if batch.client in IDS_OF_COUNTS else derived.sessions.of(partition, prefix)
        counted = copies = lates = 0
        for event in events:
            at = event[1]
            hour = at // HOUR_NS
            if hour != last or at >= future:
                reason = window.verdict(at, hour, append_ms, derived.closed_hour)
                last = None if reason is Reason.FROM_THE_FUTURE else hour
                if reason is Reason.CLOSED and version < partition.settled:
                    reason, own = None, None  # a repetition: it was counted or refused before its hour was closed
                elif reason is None:
                    late = hour_state.is_late(hour, append_ms)
                    own_key = prefix + hour_iso(hour).encode()
                    own = self._state(partition, derived, own_key, batch)
            if reason is not None:
                self._refuse(
                    derived, reason, dead_letters.refused_event(p, offset, append_ms, batch, event[13], reason)
                )
                continue
            if own is None:
                continue
            key, state, placed, its_late = own_key, own, event, late
            if session_hours is not None:
                place = CountedAt(own_key, own, event, late)
                key, state, placed, its_late = self._place(partition, derived, record, place, session_hours)
            if state.version >= version or key < closed_keys:
                continue  # this message has already been counted in the row
            touched[key] = state
            cost = price(book, provider, event)
            outcome = apply(state, placed, cost, book_hash, attribution, its_late)
            if outcome is COUNTED:
                counted += 1
                lates += late
                if cost is None:
                    self._unpriced(provider, event[2], event[3], event[4])
            elif outcome is DUPLICATE:
                copies += 1
            elif outcome is CONFLICT or outcome is REPLACED:
                letter = dead_letters.conflicting(p, offset, append_ms, batch, event, state, outcome)
                self._refuse(derived, Reason.CONFLICTING_COUNTS, letter)
            else:
                refused = REASONS[outcome]
                self._refuse(
                    derived, refused, dead_letters.refused_event(p, offset, append_ms, batch, event[13], refused)
                )
        for state in touched.values():
            state.version = version
        partition.dirty.update(touched)
        derived.folded(len(events), append_ms, events[-1][1])
        return counted, copies, lates

    def _place(
        self, partition: Partition, derived: Derived, record: InputRecord, own: CountedAt, hours_of_session: set[int]
    ) -> CountedAt:
        """Return where a request of a client with ids of its own counts: where it has been counted, else in its hour.

        Only hours that this message could change are searched: what is found depends on messages alone, and not on
        when the rows of closed hours are removed. A message that is repeated finds what it found before its hours were
        closed, where it has been counted.
        """
        ident, at = own.event[:2]
        hour = at // HOUR_NS
        if ident in own.state.ids.seen:
            return own
        first = self._window.first_open_hour(record.timestamp)
        if partition.version(record.offset) >= partition.settled:
            first = max(first, derived.closed_hour)
        session = own.key[: own.key.rindex(b"|") + 1]
        for other in hours_of_session:
            if other == hour or other < first:
                continue
            key = session + hour_iso(other).encode()
            state = self._stored_state(partition, derived, key)
            if state is not None and ident in state.ids.seen:
                late = hour_state.is_late(other, record.timestamp)
                # what its hour may forget is told by the times in it, among which this one is not
                event = (ident, min(at, state.ids.newest), *own.event[2:])
                return CountedAt(key, state, event, late)
        hours_of_session.add(hour)
        return own

    def _state(self, partition: Partition, derived: Derived, key: bytes, head: Head | ParsedBatch) -> State:
        state: State | None = partition.cache.get(key) or self._stored_state(partition, derived, key)
        if state is None:
            state = partition.cache[key] = State(head.client, head.provider)
            derived.weight += STATE_IDS
        return state

    def _stored_state(self, partition: Partition, derived: Derived, key: bytes) -> State | None:
        state: State | None = partition.cache.get(key)
        if state is None and (raw := partition.stored(key)) is not None:
            state = partition.cache[key] = state_rows.load(key, raw, partition.stored)
            derived.weight += STATE_IDS + len(state.ids)
        return state

    def _refuse(self, derived: Derived, reason: Reason, letter: dead_letters.Row) -> None:
        derived.letters.append(letter)
        self._metrics.dead_letters.labels(reason.value).inc()

    def _unpriced(self, provider: str, model: str, tier: str | None, speed: str | None) -> None:
        if self._metrics.count_unpriced(provider, model, tier or speed or ""):
            why = self._book.why_unpriced(provider, model, tier, speed)
            self._log.warning("unpriced", provider=provider, model=model, tier=tier, speed=speed, why=why)
