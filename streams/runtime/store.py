"""The interface of a local store, and an implementation in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Protocol

from tallystream.streams.runtime.changelog import Row


class RowStore(Protocol):
    """Rows by partition and key: a copy of the changelog that can be rebuilt and is never ahead of it.

    Promise: `write` is atomic (rows, and the changelog offset they were acknowledged at, or nothing), so what survives
    a crash is always the changelog's state at `changelog_offset`.
    """

    def read(self, p: int, key: bytes) -> bytes | None:
        """Return the row of `key` in partition `p`."""
        ...

    def items(self, p: int) -> Iterable[tuple[bytes, bytes]]:
        """Iterate over all rows of a partition, including reserved ones."""
        ...

    def keys_with(self, p: int, prefix: bytes) -> Iterator[bytes]:
        """Iterate over the keys of a partition that begin with `prefix`, in order."""
        ...

    def chunks(self, p: int, size: int) -> Iterator[list[bytes]]:
        """Yield all keys of a partition, `size` at a time; it does not hold resources between two chunks."""
        ...

    def changelog_offset(self, p: int) -> int:
        """Return the offset of the last changelog record in the store, -1 when it is empty."""
        ...

    def write(self, p: int, rows: Iterable[Row], offset: int, *, logged: bool = True) -> None:
        """Write rows (None deletes) and the changelog offset, in one step.

        What is not `logged` is cheaper, and a crash may undo it as long as `flush` or a write that is logged has not
        followed.
        """
        ...

    def flush(self, p: int, *, wait: bool = True) -> None:
        """Make all that was written survive a crash of the process; without `wait` only begin to."""
        ...

    def drop(self, p: int) -> None:
        """Release a revoked partition."""
        ...


class MemoryStore:
    """Rows in memory."""

    def __init__(self) -> None:
        self._rows: defaultdict[int, dict[bytes, bytes]] = defaultdict(dict)
        self._offsets: dict[int, int] = {}

    def read(self, p: int, key: bytes) -> bytes | None:
        """Return the row of `key` in partition `p`."""
        return self._rows[p].get(key)

    def items(self, p: int) -> Iterable[tuple[bytes, bytes]]:
        """Iterate over all rows of a partition, including reserved ones."""
        return self._rows[p].items()

    def keys_with(self, p: int, prefix: bytes) -> Iterator[bytes]:
        """Iterate over the keys of a partition that begin with `prefix`, in order."""
        return iter(sorted(key for key in self._rows[p] if key.startswith(prefix)))

    def chunks(self, p: int, size: int) -> Iterator[list[bytes]]:
        """Yield all keys of a partition, `size` at a time."""
        keys = list(self._rows[p])
        return (keys[start : start + size] for start in range(0, len(keys), size))

    def changelog_offset(self, p: int) -> int:
        """Return the offset of the last changelog record in the store, -1 when it is empty."""
        return self._offsets.get(p, -1)

    def write(self, p: int, rows: Iterable[Row], offset: int, *, logged: bool = True) -> None:  # noqa: ARG002
        """Write rows (None deletes) and the changelog offset."""
        kept = self._rows[p]
        for key, value in rows:
            if value is None:
                kept.pop(key, None)
            else:
                kept[key] = value
        self._offsets[p] = offset

    def flush(self, p: int, *, wait: bool = True) -> None:
        """Do nothing: no process keeps rows in memory across a crash."""

    def drop(self, p: int) -> None:
        """Forget a partition."""
        self._rows.pop(p, None)
        self._offsets.pop(p, None)

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()
        self._offsets.clear()

    def keys(self) -> Iterator[bytes]:
        """Iterate over the keys of all partitions."""
        return (key for rows in self._rows.values() for key in rows)
