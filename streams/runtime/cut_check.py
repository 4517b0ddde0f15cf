"""Whether a local store is a part of its changelog as that is now: a broker may lose the end of a log.

The offsets of lost records are given out again. A store that has read the lost records, and finds the changelog longer
than that, would miss those that took their places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aiokafka.structs import TopicPartition

from tallystream.streams.runtime.changelog import TAIL, tail_of
from tallystream.streams.runtime.host import Reader
from tallystream.streams.runtime.store import RowStore

PATIENCE = 60.0
"""Seconds without a record after which this gives up."""


async def find_cut(
    reader: Reader,
    monotonic: Callable[[], float],
    store: RowStore,
    logs: Sequence[TopicPartition],
    begins: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    current: Callable[[], bool],
) -> list[TopicPartition]:
    """Return the changelogs in which the record that the store has read last is not there, or another one.

    Compaction may have removed it, which cannot be told from a cut. A store of an earlier version does not know it, and
    one that is ahead of its changelog is not asked: both are for others to judge. `reader` should fetch little at once.

    Raises:
        KafkaError: Kafka does not answer.
        TimeoutError: Kafka answers with nothing.

    """
    wanted: dict[TopicPartition, bytes] = {}
    for log in logs:
        tail = store.read(log.partition, TAIL)
        if tail is not None and begins[log] <= store.changelog_offset(log.partition) < ends[log]:
            wanted[log] = tail
    if not wanted:
        return []
    found = []
    reader.assign({log: store.changelog_offset(log.partition) for log in wanted})
    deadline = monotonic() + PATIENCE
    while wanted and current():
        got = await reader.poll(list(wanted))
        for log, records in got.items():
            first = records[0]
            if wanted.pop(log) != tail_of(first.offset, first.key, first.value):
                found.append(log)
        for log in list(wanted):
            if await reader.position(log) >= ends[log]:
                found.append(log)
                del wanted[log]
        if wanted and monotonic() > deadline:
            raise TimeoutError(f"no records from {', '.join(f'{at.topic}-{at.partition}' for at in wanted)}")
    return found
