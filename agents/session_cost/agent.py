"""The fold of usage into the cost of sessions: table `session_hours`, topics `cost.session-hours`, `cost.hours`.

    usage message --parse--> events --verdict--> counted in their session-hour (hour_state), or a dead letter
    price correction --------> costs of a session-hour moved to another book (correction), or a dead letter
    session-hours changed since the last group --> rows, partials of the hours (hours)

The runtime (streams.runtime) ensures that each message is folded exactly once; this module only defines the fold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain

import structlog
from typing_extensions import override

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost import dead_letters, hour_state, hours, hours_of_rows, ordinary, state_rows
from tallystream.agents.session_cost.correction import CHANGED, HEADER, correct, parse_correction
from tallystream.agents.session_cost.counted import IDS_OF_COUNTS
from tallystream.agents.session_cost.derived import Derived
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
from tallystream.agents.session_cost.hours import HourSums
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.agents.session_cost.parse import Head, ParsedBatch, parse, parse_events, price
from tallystream.agents.session_cost.runs import MIN_RUN, Tally, common_bounds, count_run, parts
from tallystream.agents.session_cost.session_states import CountedAt
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.hours import HOUR_NS, hour_from_iso, hour_iso
from tallystream.schemas.rows import HourCost, SessionHourCost
from tallystream.schemas.versions import find_version
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime import Fold, Group, InputRecord, Partition, PublicRows
from tallystream.streams.runtime.changelog import DERIVED, Row, reserved
from tallystream.streams.runtime.fold import Loss, Replacement
from tallystream.streams.service.clock import Clock, SystemClock

NAME = "session_hours"
MAX_CACHE_IDS = 1_000_000
"""Event ids in decoded states, over all partitions: about 80 MB, for an id takes 8 bytes in the state and 70 in its
set. States that are not being written are then dropped, and read from the store when they are needed again."""
STATE_IDS = 30
"""Weight of a decoded state besides its ids."""
_ROW_HEADERS, _HOUR_HEADERS, _LETTER_HEADERS = (
    tuple(schema_of(model).headers) for model in (SessionHourCost, HourCost, DeadLetter)
)


class SessionCost(Fold):
    """Table `session_hours`: key `connection|session|hour`, value a state of `hour_state`.

    `window` determines how late an event may arrive, `book` its cost.
    """

    def __init__(
        self, topics: Topics, book: Book, window: Window, metrics: FoldMetrics, clock: Clock | None = None
    ) -> None:
        self.name = NAME
        self._topics = topics
        self.owned_topics = (topics.session_hour_rows.name, topics.hour_rows.name)
        self.derived_format = hours.FORMAT
        self._book = book
        self._window = window
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._log = structlog.get_logger("session_cost")
        self._derived: dict[int, Derived] = {}

    # -- states

    version = staticmethod(state_rows.version_of)  # without a call in between, as recovery asks for each row

    def watermark(self, append_ms: int) -> bytes:
        """Return the watermark: the hours before it no message appended from now on may change."""
        return self._window.watermark(append_ms)

    def is_closed(self, key: bytes, watermark: bytes) -> bool:
        """Tell whether the key's hour is before the watermark."""
        return key.rpartition(b"|")[2] < watermark

    def recovered(self, partition: Partition) -> None:
        """Start with an empty memory, because the hours are in the store."""
        self._derived[partition.number] = Derived(self._window, HourSums(partition.number, partition.stored), [])

    def derive(
        self, number: int, replaced: Sequence[Replacement], read: Callable[[bytes], bytes | None]
    ) -> Sequence[Row]:
        """Return the hours' partials that these session-hours change."""
        return hours_of_rows.derive(number, replaced, read)

    def records_lost(self, partition: Partition, loss: Loss) -> None:
        """Add a dead letter for the lost records."""
        letter = dead_letters.records_lost(partition.number, loss)
        self._refuse(self._derived[partition.number], Reason.RECORDS_LOST, letter)

    @override
    def generation_of(self, topic: str, row: bytes | None) -> int:
        """Return the generation of a public row."""
        version = find_version(row)
        return -1 if version is None else version[0]

    def lost(self, number: int) -> None:
        """Forget everything unacknowledged."""
        self._derived.pop(number, None)

    # -- fold

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

    # -- what leaves

    @override
    def group(self, partition: Partition, states: Mapping[bytes, State], version: int) -> Group:
        """Return the changed session-hours, for the changelog and for readers, the partials of their hours, and dead
        letters.
        """
        p, derived = partition.number, self._derived[partition.number]
        rows = [(key, hour_state.to_row(key, state)) for key, state in states.items()]
        derived.hours.carry(states)
        hour_rows, partials = derived.hours.take()
        refused, derived.letters = derived.letters, []
        derived.sent, derived.newest = (self._clock.monotonic(), derived.newest), None
        self._trim(partition, derived, states)
        self._metrics.rows.labels("session_hours").inc(len(rows))
        self._metrics.rows.labels("hours").inc(len(hour_rows))
        topics = self._topics
        written, derived.again = derived.again, []
        forgotten: list[Row] = []
        for key, state in states.items():
            its_rows, its_tombstones = state_rows.dump(key, state)
            written += its_rows
            forgotten += its_tombstones
        return Group(
            [*written, *forgotten],
            (
                PublicRows(topics.session_hour_rows.name, p, rows, _ROW_HEADERS),
                PublicRows(topics.hour_rows.name, p, hour_rows, _HOUR_HEADERS),
                PublicRows(topics.deadletters.name, 0, refused, _LETTER_HEADERS),
            ),
            partials,
        )

    @override
    def public_key(self, partition: Partition, topic: str, key: bytes) -> bytes | None:
        """Return the key of a session-hour's row, or of a partial's."""
        of_hours = topic == self._topics.hour_rows.name
        if key.startswith(DERIVED) is not of_hours or (not of_hours and (reserved(key) or not state_rows.is_head(key))):
            return None
        if partition.watermark is not None and self.is_closed(key.removeprefix(DERIVED), partition.watermark):
            return None
        return hours.public_key_of(partition.number, key) if of_hours else key

    def is_current(self, partition: Partition, topic: str, key: bytes, row: bytes | None) -> bool:
        """Tell whether a public row is the one in the store; for a closed hour, any row is.

        So is any row whose key this worker would never write, because there is nothing to write again.
        """
        if topic == self._topics.hour_rows.name:
            hour_key = hours.hour_key_of(partition.number, key)
            if hour_key is None or (partition.watermark is not None and hour_key[3].encode() < partition.watermark):
                return True
            wanted = hours.stored_row(partition.number, hour_key, partition.stored)
            return wanted is None or hours.holds(row, wanted)
        if not state_rows.is_head(key) or (
            partition.watermark is not None and self.is_closed(key, partition.watermark)
        ):
            return True
        raw = partition.stored(key)
        return raw is None or row == state_rows.public_row(key, raw, partition.stored)

    def rewrite(self, partition: Partition, topic: str, keys: Collection[bytes]) -> None:
        """Write session-hours, or partials of hours, again."""
        derived = self._derived[partition.number]
        if topic == self._topics.hour_rows.name:
            derived.hours.again(keys)
            return
        for key in keys:
            state, raw = partition.cache.get(key), partition.stored(key)
            if not state_rows.is_head(key):
                if raw is not None:
                    derived.again.append((key, raw))
                continue
            if state is None and raw is not None:  # a tombstone may have been written meanwhile
                state = state_rows.load(key, raw, partition.stored)
                derived.weight += STATE_IDS + len(state.ids)
            if state is not None:
                partition.cache[key] = partition.dirty[key] = state

    def _trim(self, partition: Partition, derived: Derived, states: Mapping[bytes, State]) -> None:
        """Bound the decoded states. At this moment all but `states` are in the store: a group follows the other."""
        if sum(one.weight for one in self._derived.values()) > MAX_CACHE_IDS:
            partition.cache = dict(states)
            derived.sessions.keep(states)
            derived.weight = sum(STATE_IDS + len(state.ids) for state in states.values())

    def acknowledged(self, partition: Partition) -> None:
        """Measure how long the group took, and how old its newest message is."""
        derived = self._derived[partition.number]
        if derived.sent is None:
            return
        since, newest = derived.sent
        derived.sent = None
        self._metrics.commit.observe(self._clock.monotonic() - since)
        if newest is not None:
            now = self._clock.now_ns()
            self._metrics.append_to_row.observe(max(0.0, now / 1e9 - newest[0] / 1e3))
            self._metrics.event_to_row.observe(max(0.0, (now - newest[1]) / 1e9))
