"""What a fold gives: how records change states, which rows leave, which keys are closed. No Kafka, no Faust, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tallystream.streams.runtime.changelog import PublicRows, Row
from tallystream.streams.runtime.partition import Partition


class InputRecord(Protocol):
    """A source record as a fold sees it (aiokafka's ConsumerRecord fits)."""

    @property
    def topic(self) -> str:
        """The topic's name."""
        ...

    @property
    def partition(self) -> int:
        """The partition's number."""
        ...

    @property
    def offset(self) -> int:
        """Its place in the partition, and the version of what it changes."""
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
    """What leaves together: `rows` for the changelog, in the order they must land, and `public` rows for other topics.

    Of a group that is torn a prefix of `rows` lands: a row that another one refers to goes before it.
    """

    rows: Sequence[Row]
    public: Sequence[PublicRows]
    derived: Sequence[Row] = ()
    """Derived rows, keys as in `Fold.derive`."""


Replacement = tuple[bytes, bytes | None, bytes | None]
"""A key, its row before and its row now; None: there is none."""


class Loss(NamedTuple):
    """Records `first` to `last` of a source partition that are gone.

    `counted`: they had been counted before the broker lost them, and stay counted; otherwise retention took them before
    they were. `append_ms` is the time of the newest record that is known to have been counted, -1 without one.
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
    """Folds a source topic into states by key. Subclass it; methods that have a default may be left out.

    Everything is synchronous, but for `recovered`. Keys are bytes and do not start with a zero byte. What a method
    raises ends the process.
    """

    name: str
    """The table's name: a part of the changelog's."""
    linger: float = 0.0
    """Seconds a group waits for more: trades latency for fewer rows."""
    max_unacked: int = 20_000
    """Records folded and not acknowledged, a partition; then folding waits."""
    max_cache: int = 50_000
    """Decoded states kept, a partition."""
    owned_topics: Sequence[str] = ()
    """Topics for whose partitions only the owner of the same partition of the source writes: late rows of workers that
    were replaced are found there, see `is_current`."""
    derived_format: bytes = b""
    """Names the derived rows that `derive` makes; a store that has others gets these. Empty: there are none."""

    def version(self, raw: bytes) -> int:
        """Return the version of the record that changed a row last; cheap, it is asked for each recovered row."""
        ...

    def fold(self, partition: Partition, records: Sequence[InputRecord]) -> None:
        """Fold records into states; `partition.stored(key)` has what is neither cached nor dirty.

        A record whose version (`partition.version(offset)`) is not above a state's has been counted in it: skip it. A
        key that `partition.watermark` closes must not be touched: refuse the record, or pass over it when its version
        is below `partition.settled`. Put each changed state into `partition.dirty` (and `partition.cache`).
        """
        ...

    def group(self, partition: Partition, states: Mapping[bytes, Any], version: int) -> Group:
        """Return the rows of these states, and what else leaves with them: derived rows, dead letters.

        Called once a group; `version` is that of the newest record in it, `partition.watermark` the one that all
        of it was folded under. Public rows are acknowledged before the changelog is written, and may be sent again
        (with the same or a higher version).
        """
        ...

    def rewrite(self, partition: Partition, topic: str, keys: Collection[bytes]) -> None:
        """Have the newest rows of these keys, in the changelog or in one of `owned_topics`, written again."""
        ...

    def is_current(self, partition: Partition, topic: str, key: bytes, row: bytes | None) -> bool:  # noqa: ARG002
        """Tell whether `row`, the last one of its key in one of `owned_topics`, is what this worker would have there.

        Judged by what is in the store, which has been acknowledged, not by what is folded; of a key that the store does
        not know, any row is. Versions alone do not tell: a worker with other settings may write an equal one.
        """
        return True

    def derive(
        self,
        number: int,  # noqa: ARG002 - for the subclass
        replaced: Sequence[Replacement],  # noqa: ARG002
        read: Callable[[bytes], bytes | None],  # noqa: ARG002
    ) -> Sequence[Row]:
        """Return the derived rows of partition `number` that these replacements change; `read` gives one as it was.

        Derived rows are a function of the table's rows: recovery keeps them up to date with this, `fold` and `group`
        with `Group.derived`. Their keys begin with `changelog.DERIVED`; `is_closed` is asked for the rest of the key,
        and what is closed is removed.
        """
        return ()

    def recovered(self, partition: Partition) -> None:  # noqa: ARG002 - for the subclass
        """Make what a partition has in memory: it is about to be folded."""
        return

    def records_lost(self, partition: Partition, loss: Loss) -> None:  # noqa: ARG002 - for the subclass
        """Keep a record of source records that are gone, which leaves with the next group."""
        return

    def generation_of(self, topic: str, row: bytes | None) -> int:  # noqa: ARG002 - for the subclass
        """Return the generation of a row of `owned_topics`, -1 when it cannot be told."""
        return -1

    def lost(self, number: int) -> None:  # noqa: ARG002
        """Forget what is derived from a partition: it is gone, with all that was not acknowledged."""
        return

    def acknowledged(self, partition: Partition) -> None:  # noqa: ARG002
        """Note that a group is acknowledged and stored: `partition.applied` says up to where."""
        return

    def finished(self, partition: Partition) -> int:
        """Return the position to tell Kafka, for the group's lag: what is folded but held back is not finished."""
        return partition.applied.offset

    def nudges(self, partition: Partition) -> Sequence[Row]:  # noqa: ARG002 - for the subclass
        """Return rows to append to the source, asked once a second: for a fold whose only clock is the source."""
        return ()

    def watermark(self, append_ms: int) -> bytes:  # noqa: ARG002 - for the subclass
        """Return the watermark below which keys may be removed once a record appended at `append_ms` is applied.

        Pure. Watermarks compare bytewise; empty: nothing is ever removed.
        """
        return b""

    def is_closed(self, key: bytes, watermark: bytes) -> bool:  # noqa: ARG002 - for the subclass
        """Tell whether `watermark` closes `key`. Pure; a key closed once is closed by every higher watermark."""
        return False
