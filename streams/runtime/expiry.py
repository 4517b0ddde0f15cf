"""Removes closed keys without ever letting their totals restart from zero.

A partition's watermark determines which keys are closed. It is computed from the append time of the newest applied
source record, or from our own clock if that is behind, because a broker whose clock jumps ahead must not close hours
permanently. It never decreases, even if a setting or clock changes. It applies to `fold` from the moment its group is
serialised, and is acknowledged in the changelog before the first tombstone. So events of a removed key are always
refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from tallystream.streams.runtime.changelog import DERIVED, Position, Watermark, reserved
from tallystream.streams.runtime.fold import Fold
from tallystream.streams.runtime.host import Host
from tallystream.streams.runtime.partition import Partition
from tallystream.streams.runtime.store import RowStore

CHUNK = 512
"""Keys examined in one turn of the event loop."""

REST = 3.0
"""Seconds to rest after each second of examining: the first sweep begins with the first fold after a start, and usage
must not wait for it.
"""


class Expiry:
    """Raises watermarks and passes the keys that they close to the group commit, as tombstones."""

    def __init__(self, fold: Fold, host: Host, store: RowStore) -> None:
        self._fold = fold
        self._host = host
        self._store = store
        self._alone = asyncio.Lock()
        """Held by the partition of which keys are being examined, and during the rest afterwards."""

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
                chunks = self._store.chunks(partition.number, CHUNK)
                while (closed := await self._examine(partition.number, chunks, watermark)) is not None:
                    if closed:
                        partition.swept.clear()
                        partition.expired.extend(closed)
                        partition.wake.set()
                        await partition.swept.wait()
                done = watermark
        except Exception as exc:  # noqa: BLE001 - a store that cannot be read must not go unnoticed
            self._host.fail_fast(exc)

    async def _examine(self, p: int, chunks: Iterator[list[bytes]], watermark: bytes) -> list[bytes] | None:
        """Read a chunk and rest; return its closed keys, or None after the last chunk."""
        async with self._alone:
            began = self._host.monotonic()
            keys = next(chunks, None)
            if keys is None:
                return None
            self._remove_derived(p, keys, watermark)
            closed = [key for key in keys if not reserved(key) and self._fold.is_closed(key, watermark)]
            await asyncio.sleep(REST * (self._host.monotonic() - began))
            return closed

    def _remove_derived(self, p: int, keys: Sequence[bytes], watermark: bytes) -> None:
        """Remove closed derived rows: they are only in the store, so nothing has to be acknowledged first."""
        closed = [
            key for key in keys if key.startswith(DERIVED) and self._fold.is_closed(key[len(DERIVED) :], watermark)
        ]
        if closed:
            self._store.write(p, [(key, None) for key in closed], self._store.changelog_offset(p))
