"""Removes closed keys without ever letting their totals restart from zero.

A partition's watermark determines which keys are closed. It is computed from the append time of the newest applied
source record, or from our own clock if that is behind, because a broker whose clock jumps ahead must not close hours
permanently. It never decreases, even if a setting or clock changes. It applies to `fold` from the moment its group is
serialised, and is acknowledged in the changelog before the first tombstone. So events of a removed key are always
refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tallystream.streams.runtime.changelog import DERIVED, Position, Watermark, reserved
from tallystream.streams.runtime.fold import Fold
from tallystream.streams.runtime.host import Host
from tallystream.streams.runtime.partition import Partition
from tallystream.streams.runtime.store import RowStore

CHUNK = 512
"""Keys examined in one turn of the event loop."""


class Expiry:
    """Raises watermarks and passes the keys that they close to the group commit, as tombstones."""

    def __init__(self, fold: Fold, host: Host, store: RowStore) -> None:
        self._fold = fold
        self._host = host
        self._store = store

    def raise_watermark(self, partition: Partition, at: Position) -> Watermark | None:
        """Apply the watermark for position `at` if it is higher than the current one; return it if so."""
        if at.append_ms < 0:
            return None
        value = self._fold.watermark(min(at.append_ms, self._host.now_ms()))
        if value <= (partition.watermark or b""):
            return None
        partition.watermark, partition.settled = value, partition.version(at.offset)
        return Watermark(value, partition.settled)

    def start(self, partition: Partition) -> None:
        """Start a sweep of the partition, unless one is running (which then continues to the new watermark)."""
        if partition.expiry is None or partition.expiry.done():
            partition.expiry = asyncio.ensure_future(self._sweep(partition))

    async def _sweep(self, partition: Partition) -> None:
        """Pass on the closed keys in chunks, once for each acknowledged watermark."""
        try:
            done = None
            while partition.tombstone is not None and partition.tombstone != done:
                watermark = partition.tombstone
                for chunk in self._store.chunks(partition.number, CHUNK):
                    self._remove_derived(partition.number, chunk, watermark)
                    closed = [key for key in chunk if not reserved(key) and self._fold.is_closed(key, watermark)]
                    if closed:
                        partition.swept.clear()
                        partition.expired.extend(closed)
                        partition.wake.set()
                        await partition.swept.wait()
                    await asyncio.sleep(0)
                done = watermark
        except Exception as exc:  # noqa: BLE001 - a store that cannot be read must not go unnoticed
            self._host.fail_fast(exc)

    def _remove_derived(self, p: int, keys: Sequence[bytes], watermark: bytes) -> None:
        """Remove closed derived rows: they are only in the store, so nothing has to be acknowledged first."""
        closed = [
            key for key in keys if key.startswith(DERIVED) and self._fold.is_closed(key[len(DERIVED) :], watermark)
        ]
        if closed:
            self._store.write(p, [(key, None) for key in closed], self._store.changelog_offset(p))
