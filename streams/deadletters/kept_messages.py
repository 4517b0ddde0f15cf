"""Dead letters of messages that did not fit their schema: they hold a size and a hash, and the topic holds the message.

A worker older than its gateways refuses what it does not know yet. As long as the topic keeps the message, it can be
read again by a version that knows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from hashlib import sha256
from typing import Any

import orjson
from pydantic import ValidationError

from tallystream.schemas import keys, topic_names
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.usage import UsageBatch
from tallystream.streams.kafka.reader import TopicReader
from tallystream.streams.kafka.settings import KafkaSettings

Place = tuple[int, int]
"""Partition and offset."""


async def restore(kafka: KafkaSettings, topic: str, letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    """Return the letters, those of messages that the usage topic still has and that are read now with their record.

    Raises:
        UnreachableError: Kafka did not answer.

    """
    given = list(letters)
    wanted = {place for letter in given if (place := place_of(letter)) is not None}
    if not wanted:
        return given
    found: dict[Place, bytes] = {}
    async with TopicReader(kafka, topic) as reader, aclosing(reader.batches()) as batches:
        async for batch in batches:
            for record in batch.records:
                if (batch.partition, record.offset) in wanted and record.value is not None:
                    found[batch.partition, record.offset] = record.value
    return [with_record(letter, found.get(place_of(letter) or (-1, -1))) for letter in given]


def place_of(letter: DeadLetter) -> Place | None:
    """Return where the message of a letter is in the usage topic, None when it is of something else."""
    parts = keys.split(letter.source.encode())
    if letter.reason is not Reason.INVALID_MESSAGE or letter.record or len(parts) != 4 or parts[0] != topic_names.USAGE:
        return None
    return (int(parts[1]), int(parts[2])) if parts[1].isdecimal() and parts[2].isdecimal() else None


def with_record(letter: DeadLetter, value: bytes | None) -> DeadLetter:
    """Return the letter with what of its message is a UsageBatch now: all of it, else the event that it is about."""
    if value is None or sha256(value).hexdigest() != letter.sha256:
        return letter
    try:
        message = orjson.loads(value)
    except orjson.JSONDecodeError:
        return letter
    if not isinstance(message, dict) or not isinstance(events := message.get("events"), list):
        return letter
    index = int(keys.split(letter.source.encode())[3])
    for part in (events, events[index : index + 1]):
        record: dict[str, Any] = {**message, "events": part}
        try:
            UsageBatch.model_validate(record)
        except ValidationError:
            continue
        return letter.model_copy(update={"record": record})
    return letter
