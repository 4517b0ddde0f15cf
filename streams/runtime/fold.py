"""The interface of a fold: how records change states, which rows are written, which keys are closed. It does not do
I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tallystream.streams.runtime.changelog import PublicRows, Row
from tallystream.streams.runtime.partition import Partition


class InputRecord(Protocol):
    """A source record as a fold sees it. aiokafka's ConsumerRecord fits, and so do the records of its decoder."""

    @property
    def offset(self) -> int:
        """Its offset in the partition, which becomes the version of the rows it changes."""
        ...

    @property
    def timestamp(self) -> int:
        """Append time, ms since the epoch."""
        ...

    @property
    def key(self) -> bytes | None:
        """The key."""
        ...

    @property
    def value(self) -> bytes | None:
        """The value; None is a tombstone."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """The headers."""
        ...


class Group(NamedTuple):
    """Rows that are written together: `rows` for the changelog, in order, and `public` rows for other topics.

    Of an incomplete group only a prefix of `rows` is written, so a row must come before rows that refer to it.
    """

    rows: Sequence[Row]
    public: Sequence[PublicRows]
    derived: Sequence[Row] = ()
    """Derived rows, keys as in `Fold.derive`."""


Replacement = tuple[bytes, bytes | None, bytes | None]
"""A key, its row before and its row now; None if there is none."""


class Loss(NamedTuple):
    """Records `first` to `last` of a source partition that no longer exist.

    `counted`: they were counted before the broker lost them, and stay counted; otherwise retention deleted them before
    they were counted. `append_ms` is the time of the newest record known to be counted, -1 without one.
    """

    first: int
    last: int
    counted: bool
    append_ms: int

    def __str__(self) -> str:
        if self.counted:
            return f"the broker has lost {self.first} to {self.last}, which had been counted"
        return f"retention deleted {self.first} to {self.last} before they were counted"


class Fold(Protocol):
    """Folds a source topic into states by key. Subclass it; methods with a default are optional.

    All methods except `recovered` are synchronous. Keys are bytes and do not start with a zero byte. An exception from
    a method ends the process.
    """

    name: str
    """The table's name, which is part of the changelog's name."""
    linger: float = 0.0
    """Seconds that a group waits for more records: trades latency for fewer rows."""
    max_unacked: int = 20_000
    """Maximum records per partition that are folded but not acknowledged; then folding waits."""
    max_cache: int = 50_000
    """Maximum decoded states kept per partition."""
    owned_topics: Sequence[str] = ()
    """Topics whose partitions are written only by the owner of the same source partition: late rows of replaced workers
    are detected there, see `is_current`."""
    derived_format: bytes = b""
    """Identifies the format of the rows from `derive`; stores with another format are updated. Empty without derived
    rows."""

    def version(self, raw: bytes) -> int:
        """Return the version of the record that last changed a row. Must be cheap, as it is called for each recovered
        row.
        """
        ...

    def fold(self, partition: Partition, records: Sequence[InputRecord]) -> None:
        """Fold records into states; `partition.stored(key)` has the rows that are neither cached nor dirty.

        A record whose version (`partition.version(offset)`) is not above a state's has been counted in it: skip it. A
        key that `partition.watermark` closes must not be changed: refuse the record, or skip it when its version is
        below `partition.settled`. Put each changed state into `partition.dirty` (and `partition.cache`).
        """
        ...

    def group(self, partition: Partition, states: Mapping[bytes, Any], version: int) -> Group:
        """Return the rows of these states, and everything written with them: derived rows, dead letters.

        Called once per group; `version` is that of the newest record in it, and all of it was folded under
        `partition.watermark`. Public rows are acknowledged before the changelog is written, and may be sent again (with
        the same or a higher version).
        """
        ...

    def rewrite(self, partition: Partition, topic: str, keys: Collection[bytes]) -> None:
        """Schedule the newest rows of these keys, in the changelog or in one of `owned_topics`, to be written again."""
        ...

    def public_key(self, partition: Partition, topic: str, key: bytes) -> bytes | None:
        """Return the key that the row of `key` in the store has in one of `owned_topics`; None if it has none there.

        Closed keys have none. What it returns can be passed to `rewrite`.
        """
        return None

    def is_current(self, partition: Partition, topic: str, key: bytes, row: bytes | None) -> bool:
        """Tell whether `row`, the last one of its key in one of `owned_topics`, is the row that this worker would
        write.

        It is compared with the acknowledged row in the store, not with the folded state; for a key that is not in the
        store, any row is current. Comparing versions is not enough, because a worker with other settings may write the
        same version.
        """
        return True

    def derive(
        self,
        number: int,
        replaced: Sequence[Replacement],
        read: Callable[[bytes], bytes | None],
    ) -> Sequence[Row]:
        """Return the derived rows of partition `number` that these replacements change; `read` returns their previous
        values.

        Derived rows are a function of the table's rows: recovery keeps them up to date with this, `fold` and `group`
        with `Group.derived`. Their keys begin with `changelog.DERIVED`; `is_closed` is asked for the rest of the key,
        and closed ones are removed.
        """
        return ()

    def recovered(self, partition: Partition) -> None:
        """Build the in-memory state of a partition that is about to be folded."""
        return

    def records_lost(self, partition: Partition, loss: Loss) -> None:
        """Record lost source records, for example as a dead letter in the next group."""
        return

    def generation_of(self, topic: str, row: bytes | None) -> int:
        """Return the generation of a row of `owned_topics`, -1 when it is unknown."""
        return -1

    def lost(self, number: int) -> None:
        """Forget all state derived from a partition, which has been revoked with everything unacknowledged."""
        return

    def acknowledged(self, partition: Partition) -> None:
        """Note that a group is acknowledged and stored, up to `partition.applied`."""
        return

    def finished(self, partition: Partition) -> int:
        """Return the position to commit to Kafka, for the group's lag: records that are folded but held back are not
        finished.
        """
        return partition.applied.offset

    def nudges(self, partition: Partition) -> Sequence[Row]:
        """Return rows to append to the source; called once a second, for a fold whose only clock is the source."""
        return ()

    def watermark(self, append_ms: int) -> bytes:
        """Return the watermark below which keys may be removed once a record appended at `append_ms` is applied.

        Pure. Watermarks compare bytewise; an empty one never removes anything.
        """
        return b""

    def is_closed(self, key: bytes, watermark: bytes) -> bool:
        """Tell whether `watermark` closes `key`. Pure; a closed key must be closed by every higher watermark."""
        return False
