"""Passes each fetched batch as one Faust event, without decoding by Faust, which makes the runtime fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from faust.serializers.schemas import Schema
from faust.types import TP
from faust.types.transports import SchedulingStrategyT

from tallystream.streams.runtime.fold import InputRecord

MAX_RECORDS = 4000
"""Maximum records in one event, which bounds how long folding it blocks the event loop."""
MAX_LINE = 24
"""Batches that are taken from the stream before they are folded: of 12 partitions, 2 of each."""


class EventBatch:
    """Looks like one record to Faust (`Consumer._to_message` in transport/drivers/aiokafka.py reads these attributes).

    `value` is the list of records, in offset order; `offset` that of the last one.
    """

    __slots__ = ("offset", "partition", "timestamp", "topic", "value")
    timestamp_type = 0
    headers = ()
    key = None
    checksum = None
    serialized_key_size = 0
    serialized_value_size = 0

    def __init__(self, tp: TP, records: Sequence[InputRecord]) -> None:
        last = records[-1]
        self.topic = tp.topic
        self.partition = tp.partition
        self.offset = last.offset
        self.timestamp = last.timestamp
        self.value = records


class BatchLine:
    """Batches that wait to be folded, those of a partition joined: many records cost less together.

    Only what has been read already is taken, so without a backlog no batch waits for another one.
    """

    def __init__(self) -> None:
        self._batches: dict[int, list[list[InputRecord]]] = {}
        self.size = 0
        """Batches that were added."""

    def add(self, partition: int, records: Sequence[InputRecord]) -> None:
        """Add a batch, to the last one of its partition if it continues that one."""
        self.size += 1
        line = self._batches.setdefault(partition, [])
        if line and len(line[-1]) + len(records) <= MAX_RECORDS and records[0].offset == line[-1][-1].offset + 1:
            line[-1] += records
        else:
            line.append([*records])

    def take(self) -> Iterator[tuple[int, list[InputRecord]]]:
        """Yield partition and records of what has been added, each partition's in order, until the line is empty."""
        while self._batches:
            partition, line = next(iter(self._batches.items()))
            records = line.pop(0)
            if not line:
                del self._batches[partition]
            yield partition, records
        self.size = 0


class BatchScheduler(SchedulingStrategyT):
    """Faust's setting ConsumerScheduler: hands over batches, each partition's in offset order."""

    def __init__(self) -> None:
        """Create it without arguments, as Faust's consumer does."""

    def iterate(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, Any]]:
        """Yield the fetched records of each partition as batches of at most MAX_RECORDS."""
        for tp, fetched in records.items():
            for start in range(0, len(fetched), MAX_RECORDS):
                yield tp, EventBatch(tp, fetched[start : start + MAX_RECORDS])


class BatchSchema(Schema):  # type: ignore[type-arg]  # Faust's generic parameters have no meaning for batches
    """A topic schema (`topic(schema=)`) without decoding: an event's value is the batch's list of records."""

    def compile(self, app: Any, **_kwargs: Any) -> Any:
        """Return the decoder Faust calls for each message (Schema.compile in serializers/schemas.py)."""
        create_event = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:  # noqa: ARG001 - Faust's signature
            return create_event(None, message.value, message.headers, message)

        return decode
