"""The partials of hours from the rows of session-hours, as recovery reads them by the million.

Session-hours of one hour, model and attribution are added up before a partial is touched. That is the same as adding
them one after the other (`hours`), because partials are sums and the highest version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from operator import sub

from tallystream.agents.session_cost import plain_heads, state_rows
from tallystream.agents.session_cost.hours import HourSums, Read
from tallystream.schemas import keys
from tallystream.streams.runtime.changelog import Row
from tallystream.streams.runtime.fold import Replacement

Place = tuple[bytes, bytes, str, str]
"""Connection and hour as in a key, model, attribution."""
Gains = defaultdict[Place, list[tuple[Sequence[int], int]]]
"""What each place has gained, up to a version."""


def derive(p: int, replaced: Sequence[Replacement], read: Read) -> Sequence[Row]:
    """Return the partials' rows that these replacements of session-hours change.

    A session-hour that is gone has been closed, and its hours with it: they are removed as they are.
    """
    gains = _added_up(replaced, read)
    hours = HourSums(p, read)
    for (connection, hour, model, attribution), parts in gains.items():
        (name,) = keys.split(connection)
        sums = [*map(sum, zip(*(sums for sums, _ in parts), strict=True))]
        hours.gain(name, hour.decode(), model, attribution, sums, max(version for _, version in parts))
    return hours.take_stored()


def _added_up(replaced: Sequence[Replacement], read: Read) -> Gains:
    found = plain_heads.sort_out(replaced)
    gains: Gains = defaultdict(list)
    for (connection, hour, start, bucket), (texts, versions) in found.plain.items():
        name, sums = plain_heads.name_of(start, bucket), plain_heads.add_up(texts)
        if name is None or sums is None:  # something is not what it looked like
            return _decoded(replaced, replaced, read)
        gains[connection, hour, *name].append((sums, max(versions)))
    for place, parts in _decoded(found.others, replaced, read).items() if found.others else ():
        gains[place] += parts
    return gains


def _decoded(some: Sequence[Replacement], replaced: Sequence[Replacement], read: Read) -> Gains:
    """Return what some of the replacements gain, decoded one after the other."""
    now = {key: new for key, _, new in replaced if new is not None}

    def read_now(key: bytes) -> bytes | None:
        """Rows that a head needs may have come with it."""
        return now[key] if key in now else read(key)

    gains: Gains = defaultdict(list)
    for key, old, new in some:
        if new is None or not state_rows.is_head(key):
            continue
        connection, _, hour = key.split(b"|")
        version = state_rows.version_of(new)
        before = {} if old is None else state_rows.load_buckets(key, old, read_now)
        for bucket, sums in state_rows.load_buckets(key, new, read_now).items():
            then = before.get(bucket)
            if then != sums:
                gained = sums if then is None else [*map(sub, sums, then)]
                gains[connection, hour, bucket[0], bucket[4]].append((gained, version))
    return gains
