"""Removing closed keys without ever letting their totals start again from zero.

A partition's marker says which keys are closed. It comes from the append time of the newest applied source record, so
it is a property of the log and not of a clock of ours; it never falls, whatever a setting or a broker's clock says
later. It is in force for `fold` from the moment its group is serialised, and acknowledged in the changelog before the
first tombstone: a key that is gone can only be one whose events are refused.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tallystream.streams.runtime.changelog import Closed, Position, reserved
from tallystream.streams.runtime.partition import Part

if TYPE_CHECKING:
    from tallystream.streams.runtime.faust_backend.table import FoldTable

CHUNK = 512
"""Keys looked at in one turn of the event loop."""


def raise_marker(table: FoldTable, part: Part, at: Position) -> Closed | None:
    """Put the marker for position `at` in force when it is higher than the one that is; return it then, else None."""
    if at.append_ms < 0:
        return None
    marker = table.closes_before(at.append_ms)
    if marker <= (part.closed or b""):
        return None
    part.closed, part.settled = marker, at.offset
    return Closed(marker, at.offset)


def start(table: FoldTable, p: int, part: Part) -> None:
    """Sweep the partition unless a sweep is under way (which then goes on to the new marker)."""
    if part.expiry is None or part.expiry.done():
        part.expiry = asyncio.ensure_future(_sweep(table, p, part))


async def _sweep(table: FoldTable, p: int, part: Part) -> None:
    """Hand the closed keys to the group commit, a chunk at a time; once for each marker acknowledged."""
    try:
        done = None
        while part.tombstone is not None and part.tombstone != done:
            marker = part.tombstone
            for chunk in table.store.chunks(p, CHUNK):
                closed = [key for key in chunk if not reserved(key) and table.is_closed(key, marker)]
                if closed:
                    part.swept.clear()
                    part.expired.extend(closed)
                    part.wake.set()
                    await part.swept.wait()
                await asyncio.sleep(0)
            done = marker
    except Exception as exc:  # noqa: BLE001 - a store that cannot be read must not go unnoticed
        table.app.die(exc)
