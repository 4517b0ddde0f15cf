"""Hours: what a connection's models cost a team in a UTC hour, one partition's share of it.

These sums have no changelog. They live and die with the partition: rebuilt from the rows of its session-hours when it
is recovered, and from then on raised by what each group adds to those rows. What leaves is the absolute sum of the
partition (a partial), never a difference; readers add the partials of all partitions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from operator import add, sub

import orjson

from tallystream.agents.session_cost import sums as s
from tallystream.agents.session_cost.hour_state import GENERATION, BucketKey, State
from tallystream.schemas import keys

HourKey = tuple[str, str, str, str | None]
"""connection_id, hour (as `hour_iso` writes it), model, team."""


class HourSums:
    """One partition's partials. Sync, no I/O; `p` is the partition's number."""

    def __init__(self, p: int) -> None:
        self._p = p
        self._sums: dict[HourKey, list[int]] = {}
        self._dirty: set[HourKey] = set()
        self.emitted: dict[bytes, tuple[int, int]] = {}
        """The version that each partial was emitted with last, by key as `take` gives it."""

    def __len__(self) -> int:
        return len(self._sums)

    def rebuild(self, rows: Iterable[tuple[bytes, dict[BucketKey, list[int]]]]) -> None:
        """Add up all session-hours; all partials are emitted again with the next group.

        They may have been emitted before, by a worker that could be late with an older one: with a new version now,
        the newest is the last one too, and compaction keeps it.
        """
        for key, buckets in rows:
            self._raise(key, buckets, {})

    def carry(self, states: Mapping[bytes, State]) -> None:
        """Add what these session-hours have gained since they were carried last."""
        for key, state in states.items():
            self._raise(key, state.buckets, state.carried)

    def _raise(
        self, key: bytes, buckets: Mapping[BucketKey, list[int]], before: dict[BucketKey, tuple[int, ...]]
    ) -> None:
        connection, _, hour = keys.split(key)
        for bucket, sums in buckets.items():
            now, then = tuple(sums), before.get(bucket)
            if now == then:
                continue
            before[bucket] = now
            team = orjson.loads(bucket[4]).get("team") if '"team"' in bucket[4] else None
            hour_key = (connection, hour, bucket[0], team)
            total = self._sums.get(hour_key)
            gained = now if then is None else map(sub, now, then)
            self._sums[hour_key] = list(now) if total is None else list(map(add, total, gained))
            self._dirty.add(hour_key)

    def again(self, keys: Collection[bytes]) -> None:
        """Have these partials, keys as `take` gives them, emitted with the next group."""
        self._dirty |= {key for key in self._sums if self._key(key) in keys}

    def _key(self, key: HourKey) -> bytes:
        connection, hour, model, team = key
        return keys.join(str(self._p), connection, hour, model, team or "")

    def take(self, version: int, closed: bytes | None) -> list[tuple[bytes, bytes]]:
        """Return the changed partials as (key, `schemas.rows.HourCost`); `version` is the offset just applied.

        Hours that `closed` closes are then forgotten: nothing can be added to them any more, so they are never emitted
        again.
        """
        rows = [self._row(key, version) for key in self._dirty]
        self.emitted |= dict.fromkeys((key for key, _ in rows), (GENERATION, version))
        self._dirty = set()
        if closed is not None:
            marker = closed.decode()
            for key in [key for key in self._sums if key[1] < marker]:
                del self._sums[key]
                self.emitted.pop(self._key(key), None)
        return rows

    def _row(self, key: HourKey, version: int) -> tuple[bytes, bytes]:
        connection, hour, model, team = key
        return self._key(key), orjson.dumps(
            {
                "partition": self._p,
                "connection_id": connection,
                "hour": hour,
                "model": model,
                "team": team,
                "version": (GENERATION, version),
                **s.to_fields(self._sums[key]),
            }
        )
