"""Fetched records as aiokafka's decoder makes them, without a ConsumerRecord for each.

A ConsumerRecord repeats topic and partition, measures key and value and copies the headers: for small messages that
took longer than decoding. What a fold needs (`fold.InputRecord`) the decoder's own records have.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from aiokafka.consumer.fetcher import READ_UNCOMMITTED, FetchResult
from aiokafka.errors import CorruptRecordException
from typing_extensions import override


class LightRecords:
    """The records of one partition in one fetch, in the place of aiokafka's `PartitionRecords`.

    Relies on `PartitionRecords._tp`, `_records`, `_check_crcs` and `next_fetch_offset` (consumer/fetcher.py). Control
    batches are skipped as there; transactions are not looked at.
    """

    def __init__(self, fetched: Any) -> None:
        self._tp = fetched._tp  # noqa: SLF001 - named above
        self._records = fetched._records  # noqa: SLF001 - named above
        self._check_crcs = fetched._check_crcs  # noqa: SLF001 - named above
        self.next_fetch_offset: int = fetched.next_fetch_offset
        self._decoded: list[Any] = []
        """The batch that was decoded last, from the position on."""
        self._at = 0
        """How many of it have been taken."""
        self._behind = self.next_fetch_offset
        """The offset behind that batch, and behind what compaction has removed from its end."""

    def take(self, limit: int | None = None) -> tuple[list[Any], bool]:
        """Return the next records, `limit` at most, and whether there are no more."""
        taken: list[Any] = []
        while self._at < len(self._decoded) or self._decode():
            end = len(self._decoded) if limit is None else self._at + limit - len(taken)
            taken += self._decoded[self._at : end]
            if end < len(self._decoded):
                self._at = end
                self.next_fetch_offset = taken[-1].offset + 1
                return taken, False
            self._at, self._decoded = 0, []
            self.next_fetch_offset = self._behind
            if len(taken) == limit:
                return taken, False
        return taken, True

    def _decode(self) -> bool:
        """Decode the next batch that has records; return whether there is one."""
        records = self._records
        while records.has_next():
            batch = records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            decoded = [] if batch.is_control_batch else list(batch)
            if decoded and decoded[0].offset < self.next_fetch_offset:  # a batch may begin before the position
                decoded = [record for record in decoded if record.offset >= self.next_fetch_offset]
            self._behind = batch.next_offset
            if decoded:
                self._decoded = decoded
                return True
            self.next_fetch_offset = self._behind
        return False


def _take_all(result: Any) -> Callable[[int | None], list[Any]]:
    """Return what does the work of `FetchResult.getall`, which would ask for one record after the other."""

    def getall(max_records: int | None = None) -> list[Any]:
        if not result.check_assignment(result._topic_partition) or not result.has_more():  # noqa: SLF001 - below
            return []
        taken: list[Any]
        taken, done = result._partition_records.take(max_records)  # noqa: SLF001 - below
        result._update_position()  # noqa: SLF001 - below
        if done:
            result._partition_records = None  # noqa: SLF001 - below
        return taken

    return getall


class LightFetches(OrderedDict[Any, Any]):
    """Replaces the fetcher's map of what has been fetched, by partition, and makes each result a light one."""

    @override
    def __setitem__(self, tp: Any, fetched: Any) -> None:
        if type(fetched) is FetchResult:
            fetched._partition_records = LightRecords(fetched._partition_records)  # noqa: SLF001 - named below
            fetched.getall = _take_all(fetched)
        super().__setitem__(tp, fetched)


def lighten(consumer: Any) -> None:
    """Have a started consumer return light records, unless it hides transactions.

    Relies on `AIOKafkaConsumer._fetcher`, `Fetcher._records` and `_isolation_level`, `FetchResult._partition_records`,
    `_topic_partition`, `_update_position`, `check_assignment` and `has_more`, and on `getall` being all that is called
    (consumer/fetcher.py).
    """
    fetcher = consumer._fetcher  # noqa: SLF001 - named above
    if fetcher._isolation_level == READ_UNCOMMITTED:  # noqa: SLF001 - named above
        fetcher._records = LightFetches(fetcher._records)  # noqa: SLF001 - named above
