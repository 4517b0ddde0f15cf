"""One Kafka message inside the gateway, as it is built from a request, stored in the spool and sent in a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tallystream.schemas.calls import CallBatch
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.connections import Activity
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.links import SessionLink
from tallystream.schemas.usage import UsageBatch
from tallystream.schemas.witness import WitnessBatch
from tallystream.streams.kafka.partitioning import partition_of
from tallystream.streams.kafka.topic_settings import TopicSpec
from tallystream.streams.kafka.topics import Topics


class Message(NamedTuple):
    """A message. `schema` is the header that every record of ours carries: `usage-batch/1`."""

    topic: str
    key: bytes
    value: bytes
    schema: str

    @property
    def size(self) -> int:
        """Its size in bytes, in the spool and in a batch; 64 bytes are added for everything but key and value."""
        return len(self.key) + len(self.value) + 64


class Place(NamedTuple):
    """Topic and partition of a message; -1 is a partition that has not been computed."""

    topic: str
    partition: int


CALLS_SCHEMA = schema_of(CallBatch).header.decode()
USAGE_SCHEMA = schema_of(UsageBatch).header.decode()
ACTIVITY_SCHEMA = schema_of(Activity).header.decode()
LINK_SCHEMA = schema_of(SessionLink).header.decode()
WITNESS_SCHEMA = schema_of(WitnessBatch).header.decode()
DEAD_LETTER_SCHEMA = schema_of(DeadLetter).header.decode()


def place_of(message: Message, partitions: Mapping[str, int]) -> Place:
    """Return topic and partition of a message, given the partition count of each topic we write.

    Raises:
        KeyError: its topic is not among them.

    """
    return Place(message.topic, partition_of(message.key, partitions[message.topic]))


def written_topics(topics: Topics) -> tuple[TopicSpec, ...]:
    """Return the topics the gateway writes."""
    return topics.usage, topics.calls, topics.session_links, topics.witness, topics.deadletters, topics.activity


def partition_counts(topics: Topics) -> Mapping[str, int]:
    """Return the partition count of each topic the gateway writes."""
    return {spec.name: spec.partitions for spec in written_topics(topics)}
