"""Holds sightings of calls while other sightings of the same call may still arrive, joins them, and releases each call
once.

The result depends only on the messages of one partition in their order; the clock is the broker's append time. So every
process that folds the same messages releases the same calls.

    sighting --hold--> joined with what has come by then --> released, or absorbed by a call that was released before
    sum of calls --its trace is closed--> released when nothing below it told of any call

Released calls are remembered in two ways: the sightings themselves for `memory_ms`, so that a late sighting without an
id finds its call; and marks (of response id, span and trace) for as long as usage may still be counted.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import NamedTuple

from tallystream.agents.genai_calls.alike import AlikeIndex
from tallystream.schemas.clients.genai.calls import Call, call_of, unexplained_sums
from tallystream.schemas.clients.genai.join import is_unread, join_calls
from tallystream.schemas.clients.genai.sighting import Sighting
from tallystream.schemas.clients.genai.tree import Key, Tree
from tallystream.schemas.clients.request_ids import unique_id
from tallystream.schemas.usage import TOKEN_COUNTS

MAX_TRACE = 4096
"""Maximum number of sightings kept per trace; beyond it the oldest finished ones are dropped first."""
MAX_COMPONENT = 8192
"""Maximum number of sightings that are joined at once."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where sightings came from."""

    connection_id: str
    attribution: dict[str, str]


@dataclass(frozen=True, slots=True)
class Release:
    """A released call, and the origin of each of its sightings, the owner first."""

    call: Call
    origins: tuple[Origin, ...]


@dataclass(slots=True)
class _Held:
    seen: Sighting
    origin: Origin
    offset: int
    """Offset of its message."""
    done: bool = False
    """Released, absorbed, or known to be a sum of others."""
    known: frozenset[Key] = frozenset()
    """All sightings found to be of the same call when it was released."""


@dataclass(slots=True)
class _Trace:
    keys: dict[Key, None] = field(default_factory=dict)
    below: dict[str, dict[Key, None]] = field(default_factory=dict)
    """Sightings by the id of their parent span."""
    last_ms: int = 0
    rooted: bool = False
    sums: dict[Key, None] = field(default_factory=dict)
    """Sums that are not decided yet."""
    forgotten: bool = False
    """Whether calls of it have been released whose sightings have been dropped."""


COUNTS = ("input", "cache_write", *(name for name in TOKEN_COUNTS if name in Sighting.__dataclass_fields__))
"""The token counts that a sighting may tell."""


class Conflict(NamedTuple):
    """Two records of one span with different counts: what is counted, and the other."""

    place: int
    """Of the second of them in its message."""
    connection_id: str
    counted: Sighting
    other: Sighting


class JoinState:
    """One partition's sightings. `hold_ms` is the time to wait for other sightings of a call, `quiet_ms` the silence
    after which a trace without a root counts as closed. `mark` stores a name durably, and `is_marked` tells whether a
    name is stored.
    """

    def __init__(
        self, hold_ms: int, quiet_ms: int, mark: Callable[[bytes], None], is_marked: Callable[[bytes], bool]
    ) -> None:
        self._hold_ms = hold_ms
        self._quiet_ms = quiet_ms
        self._memory_ms = quiet_ms + 2 * hold_ms
        self._mark = mark
        self._is_marked = is_marked
        self.now_ms = 0
        self._held: dict[Key, _Held] = {}
        self._traces: dict[str, _Trace] = {}
        self._ids: dict[str, dict[Key, None]] = defaultdict(dict)
        self._alike = AlikeIndex()
        self._due: deque[tuple[int, Key]] = deque()
        self._unread: deque[tuple[int, Key]] = deque()
        """Sightings that do not know their call's input, which wait for `quiet_ms` more."""
        self._old: deque[tuple[int, Key]] = deque()
        self._closing: list[tuple[int, str]] = []
        self._summed: dict[str, None] = {}
        """Traces with undecided sums."""
        self.waiting = 0
        """Number of sightings with usage that are neither released nor absorbed, without sums."""
        self.late = 0
        """Sightings that came after their call had been released; it only rises."""
        self.conflicts: list[Conflict] = []
        """Spans that were told twice, differently, since whoever reads them took them last."""

    def remember_with(self, mark: Callable[[bytes], None]) -> None:
        """Use another function to store marks from now on."""
        self._mark = mark

    # -- time

    def next_due_ms(self) -> int | None:
        """Return the time of the next decision, None when nothing is held."""
        return min((queue[0][0] for queue in (self._due, self._unread, self._closing) if queue), default=None)

    def advance(self, append_ms: int) -> list[Release]:
        """Let time pass up to a message's append time; return the calls released by that, in a deterministic order."""
        now = self.now_ms = max(self.now_ms, append_ms)
        released: list[Release] = []
        while (at := self.next_due_ms()) is not None and at <= now:
            if self._due and self._due[0][0] == at:
                released += self._decide(self._due.popleft()[1], at)
            elif self._unread and self._unread[0][0] == at:
                released += self._decide(self._unread.popleft()[1], at, last=True)
            else:
                released += self._close(heapq.heappop(self._closing)[1], at)
        while self._old and self._old[0][0] <= now:
            self._forget(self._old.popleft()[1])
        return released

    # -- sightings

    def add(self, origin: Origin, sightings: Iterable[Sighting], offset: int) -> None:
        """Take the sightings of the message at `offset`, whose append time has been given to `advance`."""
        for index, seen in enumerate(sightings):
            held = self._held.get(seen.key)
            if held is None:
                self._add(origin, seen, offset)
            elif held.seen.has_usage and seen.has_usage and _told(held.seen) != _told(seen):
                self._tell_again(held, seen, index)

    def _tell_again(self, held: _Held, seen: Sighting, index: int) -> None:
        """Take the larger of two records of one span, as long as its call is held; both are shown."""
        before = held.seen
        if not held.done and before.kind == seen.kind and _size(seen) > _size(before):
            self._alike.remove(before)
            held.seen = replace(before, **{name: getattr(seen, name) for name in _TOLD})
            self._alike.add(held.seen)
            seen = before
        self.conflicts.append(Conflict(index, held.origin.connection_id, held.seen, seen))

    def first_waiting(self) -> int | None:
        """Return the offset of the oldest message with a call that is neither released nor absorbed, or None.

        A sum counts only after the root of its trace has arrived, because until then it may wait for long.
        So does a call whose input is unknown.
        """
        calls = (self._held[key] for _, key in self._due if key in self._held)
        first = next((held.offset for held in calls if not held.done and held.seen.has_usage), None)
        sums = [
            self._held[key].offset
            for trace in self._summed
            for key in self._traces[trace].sums
            if self._traces[trace].rooted
        ]
        return min([*sums, *([] if first is None else [first])], default=None)

    def _add(self, origin: Origin, seen: Sighting, offset: int) -> None:
        now = self.now_ms
        trace = self._traces.get(seen.trace_id)
        if trace is None:
            trace = self._traces[seen.trace_id] = _Trace()
        held = self._held[seen.key] = _Held(seen, origin, offset)
        trace.keys[seen.key] = None
        if seen.parent_id:
            trace.below.setdefault(seen.parent_id, {})[seen.key] = None
        trace.last_ms = now
        trace.rooted |= not seen.parent_id
        self._old.append((now + self._memory_ms, seen.key))
        if seen.kind == "call":
            unique = unique_id(seen.response_id)
            if unique is not None:
                self._ids[unique][seen.key] = None
            self._alike.add(seen)
            if self._is_marked(_span_mark(seen)) or (unique is not None and self._is_marked(_id_mark(unique))):
                held.done = True
                self.late += seen.has_usage
            else:
                self._due.append((now + self._hold_ms, seen.key))
                self.waiting += seen.has_usage
        elif seen.kind == "sum" and seen.has_usage:
            if self._is_marked(_span_mark(seen)):
                held.done = True
            else:
                trace.sums[seen.key] = None
                self._summed[seen.trace_id] = None
        if trace.sums:
            heapq.heappush(self._closing, (now + self._hold_ms, seen.trace_id))
            heapq.heappush(self._closing, (now + self._quiet_ms, seen.trace_id))
        if len(trace.keys) > MAX_TRACE:
            self._shorten(trace)

    def _shorten(self, trace: _Trace) -> None:
        for key in list(trace.keys):
            if len(trace.keys) <= MAX_TRACE:
                return
            if self._held[key].done or self._held[key].seen.kind == "node":
                self._forget(key)

    def _forget(self, key: Key) -> None:
        held = self._held.pop(key, None)
        if held is None:
            return
        seen = held.seen
        if (unique := unique_id(seen.response_id)) in self._ids:
            self._ids[unique].pop(key, None)
            if not self._ids[unique]:
                del self._ids[unique]
        self._alike.remove(seen)
        trace = self._traces[seen.trace_id]
        trace.keys.pop(key, None)
        below = trace.below.get(seen.parent_id, {})
        below.pop(key, None)
        if not below:
            trace.below.pop(seen.parent_id, None)
        trace.forgotten |= held.done and seen.kind == "call"
        if not held.done:
            self._finish(held)
        if not trace.keys:
            del self._traces[seen.trace_id]

    # -- decisions

    def _decide(self, key: Key, at_ms: int, *, last: bool = False) -> list[Release]:
        """Release the call of a sighting, unless it has been released already, or waits until the `last` decision."""
        held = self._held.get(key)
        if held is None or held.done:
            return []
        component = self._component(key)
        tree = Tree(self._held[one].seen for one in component)
        known = {self._held[one].known for one in component if self._held[one].known}
        groups = join_calls(tree, [sorted(keys) for keys in sorted(known, key=sorted)])
        group = next((group for group in groups if any(seen.key == key for seen in group)), None)
        if group is None:  # a sum of calls below it
            self._finish(held)
            return []
        members = [self._held[seen.key] for seen in group]
        if any(one.done for one in members) or self._is_below_released_sum(tree, held.seen):
            self.late += sum(one.seen.has_usage for one in members if not one.done)
            self._settle(members)
            return []
        if not any(seen.has_usage for seen in group):
            return []  # it keeps waiting for a sighting with token counts
        if not last and all(is_unread(seen) for seen in group if seen.has_usage):
            self._unread.append((at_ms + self._quiet_ms, key))
            return []
        call = call_of(tree, group)
        self._settle(members)
        return [Release(call, self._origins(call))]

    def _is_below_released_sum(self, tree: Tree, seen: Sighting) -> bool:
        return any(up.kind == "sum" and self._held[up.key].done and self._held[up.key].known for up in tree.above(seen))

    def _settle(self, members: list[_Held]) -> None:
        """Remember that these sightings belong to one released call."""
        known = frozenset(one.seen.key for one in members)
        for one in members:
            self._finish(one)
            one.known = known
            self._mark(_span_mark(one.seen))
            if (unique := unique_id(one.seen.response_id)) is not None:
                self._mark(_id_mark(unique))
        for trace_id in sorted({one.seen.trace_id for one in members}):
            self._mark(_trace_mark(trace_id))

    def _finish(self, held: _Held) -> None:
        if not held.done:
            held.done = True
            if held.seen.kind == "call":
                self.waiting -= held.seen.has_usage
            else:
                trace = self._traces[held.seen.trace_id]
                trace.sums.pop(held.seen.key, None)
                if not trace.sums:
                    self._summed.pop(held.seen.trace_id, None)

    def _close(self, trace_id: str, at_ms: int) -> list[Release]:
        """Decide the sums of a trace when it is closed, that is, its root or no span for a long time has arrived."""
        trace = self._traces.get(trace_id)
        if trace is None or not trace.sums:
            return []
        quiet = trace.last_ms + self._quiet_ms <= at_ms
        if not quiet and not (trace.rooted and trace.last_ms + self._hold_ms <= at_ms):
            return []
        tree = Tree(self._held[key].seen for key in trace.keys)
        calls = [key for key, seen in tree.by_key.items() if seen.kind == "call" and seen.has_usage]
        told = trace.forgotten or (not calls and self._is_marked(_trace_mark(trace_id)))
        counted = [*calls, *(key for key in trace.keys if self._held[key].seen.kind == "sum" and self._held[key].known)]
        sums = [] if told else unexplained_sums(tree, counted)
        released = []
        for key in list(trace.keys):
            held = self._held[key]
            if held.seen.kind != "sum" or held.done:
                continue
            if held.seen in sums:
                call = call_of(tree, (held.seen,))
                self._settle([held])
                released.append(Release(call, self._origins(call)))
            else:
                self._finish(held)
        return released

    def _origins(self, call: Call) -> tuple[Origin, ...]:
        others = [self._held[seen.key].origin for seen in call.members if seen.key != call.owner.key]
        return (self._held[call.owner.key].origin, *others)

    def _component(self, key: Key) -> list[Key]:
        """Return all sightings that may be related to a call: above and below it, by id, and by tokens and time."""
        found: dict[Key, bool] = {}
        todo = [(key, True)]
        while todo and len(found) < MAX_COMPONENT:
            key, down = todo.pop()
            seen = self._held[key].seen
            down |= seen.kind == "call"
            if key in found and (found[key] or not down):
                continue
            found[key] = down
            trace = self._traces[seen.trace_id]
            if down:
                todo += ((one, True) for one in trace.below.get(seen.span_id, ()))
            above = (seen.trace_id, seen.parent_id)
            if above in self._held:
                todo.append((above, False))
            elif seen.parent_id and seen.session is None:
                named = [one for one in trace.below[seen.parent_id] if self._held[one].seen.session is not None]
                todo += ((one, False) for one in sorted(named, key=self._started)[:1])
            if seen.kind == "call":
                if (unique := unique_id(seen.response_id)) is not None:
                    todo += ((one, True) for one in self._ids.get(unique, ()))
                if seen.has_usage:
                    todo += ((one, True) for one in self._alike.of(seen))
        return sorted(found)

    def _started(self, key: Key) -> tuple[int, Key]:
        return self._held[key].seen.start_ns, key


_TOLD = (*COUNTS, "cost_usd", "finished")


def _told(seen: Sighting) -> tuple[int, ...]:
    """Return the counts that two copies of one span have in common."""
    return seen.input or 0, seen.output or 0, seen.cache_read or 0, seen.cache_write or 0, seen.cache_write_1h or 0


def _size(seen: Sighting) -> tuple[int, tuple[int, ...]]:
    told = _told(seen)
    return told[0] + told[1], told


def _mark(*parts: str) -> bytes:
    return blake2b("\0".join(parts).encode(), digest_size=12).digest()


def _span_mark(seen: Sighting) -> bytes:
    return _mark("span", seen.trace_id, seen.span_id)


def _id_mark(unique: str) -> bytes:
    return _mark("id", unique)


def _trace_mark(trace_id: str) -> bytes:
    return _mark("trace", trace_id)
