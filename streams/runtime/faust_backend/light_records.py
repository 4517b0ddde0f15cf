"""Fetched records as aiokafka's decoder makes them, without a ConsumerRecord for each.

A ConsumerRecord repeats topic and partition, measures key and value and copies the headers: for small messages that
took longer than decoding. What a fold needs (`fold.InputRecord`) the decoder's own records have.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from aiokafka.consumer.fetcher import READ_UNCOMMITTED, FetchResult
from aiokafka.errors import CorruptRecordException
from typing_extensions import override


class LightRecords:
    """The records of one partition in one fetch, in the place of aiokafka's `PartitionRecords`.

    Relies on `PartitionRecords._tp`, `_records`, `_check_crcs` and `next_fetch_offset`, and on `FetchResult.getall`
    iterating over this (consumer/fetcher.py). Control batches are skipped as there; transactions are not looked at.
    """

    def __init__(self, fetched: Any) -> None:
        self._tp = fetched._tp  # noqa: SLF001 - named above
        self._records = fetched._records  # noqa: SLF001 - named above
        self._check_crcs = fetched._check_crcs  # noqa: SLF001 - named above
        self.next_fetch_offset: int = fetched.next_fetch_offset
        self._left = self._decoded()

    def __iter__(self) -> Iterator[Any]:
        """Go on behind the last record that was taken."""
        return self._left

    def _decoded(self) -> Iterator[Any]:
        records = self._records
        while records.has_next():
            batch = records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if not batch.is_control_batch:
                for record in batch:
                    offset = record.offset
                    if offset >= self.next_fetch_offset:  # a batch may begin before the position
                        self.next_fetch_offset = offset + 1
                        yield record
            # also behind what compaction has removed from the end of the batch
            self.next_fetch_offset = batch.next_offset


class LightFetches(OrderedDict[Any, Any]):
    """Replaces the fetcher's map of what has been fetched, by partition, and makes each result a light one."""

    @override
    def __setitem__(self, tp: Any, fetched: Any) -> None:
        if type(fetched) is FetchResult:
            fetched._partition_records = LightRecords(fetched._partition_records)  # noqa: SLF001 - named below
        super().__setitem__(tp, fetched)


def lighten(consumer: Any) -> None:
    """Have a started consumer return light records, unless it hides transactions.

    Relies on `AIOKafkaConsumer._fetcher`, `Fetcher._records` and `_isolation_level`, `FetchResult._partition_records`.
    """
    fetcher = consumer._fetcher  # noqa: SLF001 - named above
    if fetcher._isolation_level == READ_UNCOMMITTED:  # noqa: SLF001 - named above
        fetcher._records = LightFetches(fetcher._records)  # noqa: SLF001 - named above
