"""The cost of sessions as the runtime sees it: table `session_hours`, topics `cost.session-hours`, `cost.hours`.

    usage message, price correction --fold--> a session-hour's state (hour_state), or a dead letter
    session-hours changed since the last group --> rows, partials of the hours (hours)

The runtime (streams.runtime) ensures that each message is folded exactly once; `fold` says how, and this module what is
written, recovered and closed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from typing_extensions import override

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost import dead_letters, hour_state, hours, hours_of_rows, state_rows
from tallystream.agents.session_cost.derived import STATE_IDS, Derived
from tallystream.agents.session_cost.fold import MessageFold
from tallystream.agents.session_cost.hour_state import State, Window
from tallystream.agents.session_cost.hours import HourSums
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.rows import HourCost, SessionHourCost
from tallystream.schemas.versions import find_version
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime import Group, Partition, PublicRows
from tallystream.streams.runtime.changelog import DERIVED, Row, reserved
from tallystream.streams.runtime.fold import Loss, Replacement
from tallystream.streams.service.clock import Clock, SystemClock

NAME = "session_hours"
MAX_CACHE_IDS = 1_000_000
"""Event ids in decoded states, over all partitions: about 80 MB, for an id takes 8 bytes in the state and 70 in its
set. States that are not being written are then dropped, and read from the store when they are needed again."""
_ROW_HEADERS, _HOUR_HEADERS, _LETTER_HEADERS = (
    tuple(schema_of(model).headers) for model in (SessionHourCost, HourCost, DeadLetter)
)


class SessionCost(MessageFold):
    """Table `session_hours`: key `connection|session|hour`, value a state of `hour_state`.

    `window` determines how late an event may arrive, `book` its cost.
    """

    def __init__(
        self, topics: Topics, book: Book, window: Window, metrics: FoldMetrics, clock: Clock | None = None
    ) -> None:
        super().__init__(book, window, metrics)
        self.name = NAME
        self._topics = topics
        self.owned_topics = (topics.session_hour_rows.name, topics.hour_rows.name)
        self.derived_format = hours.FORMAT
        self._clock = clock or SystemClock()

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
