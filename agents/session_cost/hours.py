"""Hourly costs by connection, model and team; each partition has its share of an hour (a partial).

A partial is the sum of the partition's session-hours, a function of their rows and of nothing else. It is kept beside
them in the local store, written in the same step, and is in no changelog: whoever recovers the session-hours has it
again, row by row. What leaves is the absolute sum, never a difference; readers add the partials of all partitions.
Its version is the highest of its session-hours' when it changed.

A partial is told apart by agent inside its row, not by its key: a row in the place of one of a release that knew no
agents replaces it, so that no request is in two rows whichever release wrote last (docs/adr/0014).

What a partial says is a function of the session-hours, its version is not quite: who folded every message knows in
which one a sum changed; who recovered has seen only some of the rows, and may take a later message for it, one that
changed nothing (a duplicate). So two owners may have one partial in two versions, and the higher one stays (`holds`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from operator import add, sub
from typing import Any

import orjson

from tallystream.agents.session_cost import sums as s
from tallystream.agents.session_cost.hour_state import BucketKey, State
from tallystream.schemas import keys
from tallystream.schemas.rows import HourCost
from tallystream.schemas.versions import find_version, supersedes
from tallystream.streams.runtime.changelog import DERIVED, split_version

FORMAT = b"hours/2"
MAX_AGENTS = 100
"""Agents that a partial is told apart by. With more it is not told apart at all, so that what its row says does not
depend on which agents came first, and a row stays below 200 kB whatever clients send as a name."""
MAX_CACHE = 10_000
"""Decoded partials kept, a partition."""

HourKey = tuple[str, str, str, str]
"""connection_id, model, team (empty: none), hour as `hour_iso` writes it."""
Read = Callable[[bytes], bytes | None]


class Partial:
    """One partial: `sums` in the order of `sums`, `version` that of the message that changed it last.

    `agents` are the parts of `sums` by agent (empty: none), None when there are more than MAX_AGENTS.
    """

    __slots__ = ("agents", "sums", "version")

    def __init__(
        self, version: int = -1, sums: list[int] | None = None, agents: dict[str, list[int]] | None = None
    ) -> None:
        self.version = version
        self.sums = s.zero() if sums is None else sums
        self.agents = {} if sums is None else agents

    def add(self, agent: str, gained: Sequence[int]) -> None:
        """Add what an agent's requests have gained."""
        self.sums = list(map(add, self.sums, gained))
        if self.agents is None:
            return
        part = self.agents.get(agent)
        if len(self.agents) == (part is not None):  # of one agent, as most are: its part is the whole
            self.agents[agent] = self.sums
            return
        if part is None and len(self.agents) == MAX_AGENTS:
            self.agents = None
        else:
            self.agents[agent] = list(gained if part is None else map(add, part, gained))

    def dump(self) -> bytes:
        """Return the row of the store; numbers are text when one exceeds the 64 bits that orjson writes."""
        parts = self.agents
        agents = next(iter(parts)) if parts is not None and len(parts) == 1 else parts
        try:
            return orjson.dumps((self.version, self.sums, agents))
        except orjson.JSONEncodeError:
            told = (
                agents if agents is None or isinstance(agents, str) else {a: _texts(part) for a, part in agents.items()}
            )
            return orjson.dumps((self.version, _texts(self.sums), told))

    @classmethod
    def load(cls, raw: bytes) -> Partial:
        """Load what `dump` wrote."""
        version, texts, agents = orjson.loads(raw)
        sums = s.widened(map(int, texts))
        if isinstance(agents, str):
            return cls(version, sums, {agents: sums})
        parts = agents and {agent: s.widened(map(int, part)) for agent, part in agents.items()}
        return cls(version, sums, parts)


def _texts(sums: Sequence[int]) -> list[str]:
    return list(map(str, sums))


@lru_cache(10_000)
def _named(attribution: str) -> tuple[str, str]:
    """Return the team and the agent of an attribution, empty where it names none."""
    found = orjson.loads(attribution)
    return found.get("team") or "", found.get("agent") or ""


class HourSums:
    """One partition's partials, read from the store when they are needed. Sync; `p` is the partition's number."""

    def __init__(self, p: int, read: Read) -> None:
        self._p = p
        self._read = read
        self._cache: dict[HourKey, Partial] = {}
        self._dirty: dict[HourKey, Partial] = {}

    def carry(self, states: Mapping[bytes, State]) -> None:
        """Add what these session-hours have gained since they were carried last."""
        for key, state in states.items():
            self.replace(key, state.buckets, state.carried, state.version, state.lowered)
            state.lowered.clear()

    def replace(
        self,
        key: bytes,
        buckets: Mapping[BucketKey, Sequence[int]],
        before: dict[BucketKey, tuple[int, ...]],
        version: int,
        lowered: Collection[BucketKey] = (),
    ) -> None:
        """Put a session-hour's buckets in the place of those `before`, which become the same.

        A bucket that was `lowered` may be as it was before. It is emitted all the same: a worker that died may have
        published what it was in between.
        """
        connection, _, hour = keys.split(key)
        for bucket, sums in buckets.items():
            now, then = tuple(sums), before.get(bucket)
            if now == then and bucket not in lowered:
                continue
            before[bucket] = now
            gained = now if then is None else tuple(map(sub, now, then))
            self.gain(connection, hour, bucket[0], bucket[4], gained, version)

    def gain(
        self, connection: str, hour: str, model: str, attribution: str, gained: Sequence[int], version: int
    ) -> None:
        """Add what requests of a model and an attribution have gained up to a version."""
        team, agent = _named(attribution)
        partial = self._partial((connection, model, team, hour))
        partial.add(agent, gained)
        partial.version = max(partial.version, version)

    def _partial(self, key: HourKey) -> Partial:
        partial = self._cache.get(key)
        if partial is None:
            raw = self._read(store_key(key))
            partial = self._cache[key] = Partial() if raw is None else Partial.load(raw)
        self._dirty[key] = partial
        return partial

    def again(self, public_keys: Collection[bytes]) -> None:
        """Emit these partials again with the next group; keys as in the topic."""
        for public_key in public_keys:
            if (key := hour_key_of(self._p, public_key)) is not None:
                self._partial(key)

    def take(self) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
        """Return the changed partials: as (key, `schemas.rows.HourCost`) for readers, and as rows for the store."""
        public = [(public_key(self._p, key), to_row(self._p, key, partial)) for key, partial in self._dirty.items()]
        return public, self.take_stored()

    def take_stored(self) -> list[tuple[bytes, bytes]]:
        """Return only the rows for the store."""
        dirty, self._dirty = self._dirty, {}
        if len(self._cache) > MAX_CACHE:
            self._cache = dict(dirty)  # the others are in the store: a group follows the other
        return [(store_key(key), partial.dump()) for key, partial in dirty.items()]


def stored_row(p: int, key: HourKey, read: Read) -> bytes | None:
    """Return the public row of a partial sum from the store, None if it is missing."""
    raw = read(store_key(key))
    return None if raw is None else to_row(p, key, Partial.load(raw))


def holds(row: bytes | None, wanted: bytes) -> bool:
    """Tell whether a public row says what `wanted` says, in its version or in a higher one."""
    if row == wanted:
        return True
    version = find_version(row)
    if version is None or not supersedes(version, find_version(wanted)):
        return False
    said, ours = _content(row), _content(wanted)
    if said and ours and said["agents"] is None:
        ours["agents"] = None  # an earlier release's row has the same sums: when they change, it is replaced
    return said == ours


_DEFAULTS = {name: field.default for name, field in HourCost.model_fields.items() if not field.is_required()}
"""Of fields that rows of earlier releases do not have."""


def _content(row: bytes | None) -> dict[str, Any] | None:
    """Parse a row; None when it is not a valid row, because it may be anything."""
    try:
        said = orjson.loads(row or b"null")
    except ValueError:
        return None
    return {**_DEFAULTS, **said, "version": None} if type(said) is dict else None


def store_key(key: HourKey) -> bytes:
    """Return the key in the store; it ends with the hour, as a session-hour's."""
    return DERIVED + keys.join(*key)


def public_key(p: int, key: HourKey) -> bytes:
    """Return the key in the topic."""
    connection, model, team, hour = key
    return keys.join(str(p), connection, hour, model, team)


def public_key_of(p: int, stored_key: bytes) -> bytes:
    """Return the key in the topic of a partial, from its key in the store."""
    connection, model, team, hour = keys.split(stored_key.removeprefix(DERIVED))
    return public_key(p, (connection, model, team, hour))


def hour_key_of(p: int, key: bytes) -> HourKey | None:
    """Return which partial a key in the topic, which may be any bytes, is of; None: of none of this partition's."""
    try:
        _, connection, hour, model, team = keys.split(key)
    except ValueError:
        return None
    found = connection, model, team, hour
    return found if public_key(p, found) == key else None


def to_row(p: int, key: HourKey, partial: Partial) -> bytes:
    """Return a `schemas.rows.HourCost`."""
    connection, model, team, hour = key
    sums = s.to_fields(partial.sums)
    agents = None
    if partial.agents is not None:
        one = len(partial.agents) == 1
        agents = [
            {"agent": agent or None, **(sums if one else s.to_fields(part))}
            for agent, part in sorted(partial.agents.items())
            if part[s.REQUESTS]  # else they were all taken back
        ]
    return orjson.dumps(
        {
            "partition": p,
            "connection_id": connection,
            "hour": hour,
            "model": model,
            "team": team or None,
            "version": split_version(partial.version),
            **sums,
            "agents": agents,
        }
    )
