"""The published index of `openai.records`: the newest poll of each key and the digest of its rows.

It is read when a poller becomes the active one, and then updated incrementally. A record that is followed by an older
one has been overtaken: a suspended poller woke up and wrote late. Compaction would keep the wrong record, so the active
poller writes the right one again (`overtaken`); the topic's compaction lag gives it a day to do so.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from aiokafka import ConsumerRecord
from pydantic import ValidationError

from tallystream.schemas.openai import OpenAIRecord, PollCursor
from tallystream.streams.kafka.reader import TopicReader, latest
from tallystream.streams.kafka.settings import KafkaSettings

log = structlog.get_logger()


@dataclass(frozen=True)
class PublishedEntry:
    """The newest record of a key."""

    polled_at: datetime
    digest: str


class PublishedIndex:
    """One poller's view of the topic. Every method raises UnreachableError when Kafka does not answer."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._position = 0
        self._entries: dict[bytes, PublishedEntry] = {}
        self._overtaken: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> PublishedEntry | None:
        """Return the topic's entry for a key."""
        return self._entries.get(key)

    def note(self, record: OpenAIRecord) -> None:
        """Add a record that Kafka has acknowledged."""
        self._entries[record.key] = PublishedEntry(record.polled_at, record.digest)
        self._overtaken.discard(record.key)

    async def refresh(self) -> None:
        """Read the records written since the last time."""
        async with TopicReader(self._kafka, self._topic) as reader:
            begin, end = reader.extent.begin.get(0, 0), reader.extent.end.get(0, 0)
            if end < self._position:
                # The topic was recreated, so our view of it is void.
                self._entries.clear()
                self._overtaken.clear()
                self._position = begin
            reader.extent = replace(reader.extent, begin={0: max(begin, self._position)})
            async with aclosing(reader.batches()) as batches:
                async for batch in batches:
                    self._apply(batch.records)
            self._position = end

    async def overtaken(self) -> list[OpenAIRecord]:
        """Return the newest records of the keys whose last record in the topic is an older one."""
        if not self._overtaken:
            return []
        found: dict[bytes, OpenAIRecord] = {}
        async with TopicReader(self._kafka, self._topic) as reader, aclosing(reader.batches()) as batches:
            async for batch in batches:
                for message in batch.records:
                    if message.key in self._overtaken and (record := _record(message)):
                        have = found.get(record.key)
                        if have is None or record.polled_at >= have.polled_at:
                            found[record.key] = record
        return list(found.values())

    def _apply(self, messages: Iterable[ConsumerRecord]) -> None:
        for message in messages:
            key = message.key or b""
            if message.value is None:
                self._entries.pop(key, None)
                self._overtaken.discard(key)
                continue
            record = _record(message)
            if record is None:
                continue
            have = self._entries.get(key)
            if have is not None and record.polled_at < have.polled_at:
                self._overtaken.add(key)
                continue
            self._entries[key] = PublishedEntry(record.polled_at, record.digest)
            self._overtaken.discard(key)


async def read_cursors(kafka: KafkaSettings, topic: str) -> dict[bytes, PollCursor]:
    """Return the cursor of each query.

    Raises:
        UnreachableError: Kafka did not answer.

    """
    cursors = {}
    for key, value in (await latest(kafka, topic)).items():
        try:
            cursors[key] = PollCursor.model_validate_json(value)
        except ValidationError:
            log.warning("unreadable_cursor", key=key.decode(errors="replace"), next="its query is polled from scratch")
    return cursors


def _record(message: ConsumerRecord) -> OpenAIRecord | None:
    """Return the record; one that this version cannot read is ignored and polled again when needed."""
    try:
        return OpenAIRecord.model_validate_json(message.value or b"")
    except ValidationError:
        log.warning("unreadable_record", key=(message.key or b"").decode(errors="replace"), offset=message.offset)
        return None
