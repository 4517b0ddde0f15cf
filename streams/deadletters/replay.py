"""Replays dead letters to the usage topic: those that contain an event, or enough of its record, and would be counted
now.

Replaying twice is harmless: an event that was counted already, by an earlier replay or because a client sent it again,
is recognised by its id and not counted again. Letters that would only be refused again are not sent, and the reason is
returned.

    undecodable, unrecognised_usage, invalid_counts, no_session, no_time
                        a record with enough of its fields: once this version knows how to count it
    from_the_future     once its time lies less than a day ahead
    invalid_message     while the usage topic keeps the message, once this version reads it (`kept_messages`)
    unknown_connection  when told which connection it belongs to
    too_late, closed    not in this deployment: its hour has been removed from the state, and a total never starts again
    beyond_dedupe       not in this deployment: it may have been counted, and its id is forgotten
    row_full            not in this deployment: the row is as full as it was
    conflicting_counts  never: its request is counted, with the larger counts
    reprice_refused     never: it is not usage, and `tallystream reprice --apply` sends another

too_late to row_full may go into another deployment (another prefix): what that accepts depends on its lateness alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import orjson
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from tallystream.schemas import keys
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.clients.registry import NORMALISERS
from tallystream.schemas.clients.renormalise import renormalise
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import InvalidRecordError, Reason, UnreachableError
from tallystream.schemas.hours import HOUR_NS
from tallystream.schemas.usage import Attribution, UsageBatch, UsageEvent
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.partitioning import partition_of
from tallystream.streams.kafka.producer import MANY, producing
from tallystream.streams.kafka.reader import partitions_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import utc

OF_RECORDS = frozenset(
    {Reason.UNDECODABLE, Reason.UNRECOGNISED_USAGE, Reason.INVALID_COUNTS, Reason.NO_SESSION, Reason.NO_TIME}
)
"""Reasons whose letters contain a record's fields instead of an event: these are normalised again."""
DAY_NS = 24 * HOUR_NS
FOR_GOOD = {
    Reason.TOO_LATE: "its hour is closed in this deployment: --into another one",
    Reason.CLOSED: "its hour is closed in this deployment: --into another one",
    Reason.BEYOND_DEDUPE: "it may have been counted in this deployment: --into another one",
    Reason.ROW_FULL: "its row is full in this deployment: --into another one",
}


@dataclass(frozen=True)
class Into:
    """The target of a replay. `own`: it is the deployment that refused the letters."""

    own: bool
    lateness: timedelta
    connection: str | None = None
    """Connection for events whose ingest id does not belong to any connection."""


Row = tuple[bytes, bytes]


def prepare(letter: DeadLetter, into: Into, now_ns: int) -> Row | str:
    """Return the usage message of a letter, or why sending it would not help. Pure."""
    batch = _batch(letter, into)
    if isinstance(batch, str):
        return batch
    if into.own and letter.reason in FOR_GOOD:
        return FOR_GOOD[letter.reason]
    for event in batch.events:
        if event.occurred_at >= now_ns + DAY_NS:
            return f"it lies a day or more ahead until {utc(event.occurred_at - DAY_NS):%Y-%m-%d %H:%M} UTC"
        hour_end = (event.occurred_at // HOUR_NS + 1) * HOUR_NS
        if hour_end <= now_ns - int(into.lateness.total_seconds()) * 1_000_000_000:
            return "it is older than TALLYSTREAM_LATENESS: raise it, for the workers too"
    value = orjson.dumps(batch.model_dump(exclude_none=True))
    return keys.join(batch.connection_id, batch.session_id), value


def _batch(letter: DeadLetter, into: Into) -> UsageBatch | str:
    """Return the usage message of the letter's events, or why it cannot be built."""
    record = letter.record
    if letter.reason is Reason.CONFLICTING_COUNTS:
        return "its request is counted already, with the larger counts"
    if letter.reason is Reason.REPRICE_REFUSED:
        return "it corrects prices and holds no usage: run `tallystream reprice --apply` again"
    if letter.reason in OF_RECORDS and record:
        return _normalised(letter, into)
    if letter.reason is Reason.UNKNOWN_CONNECTION:
        if into.connection is None:
            return "it does not belong to a connection: choose one with --connection"
        provider = next((one.provider for one in NORMALISERS if one.client == letter.client), None)
        record = {
            "connection_id": into.connection,
            "client": letter.client,
            "provider": provider,
            "session_id": letter.session_id,
            "events": [record],
        }
    if letter.reason is Reason.INVALID_MESSAGE and not record:
        return "its message is no longer in the usage topic, or this version still cannot read it"
    try:
        return UsageBatch.model_validate(record)
    except ValidationError:
        return "it does not contain a whole event: only the client can send it again"


def _normalised(letter: DeadLetter, into: Into) -> UsageBatch | str:
    """Return a record's usage by the rules of this version, or why it still cannot be counted."""
    connection = letter.connection_id or into.connection
    if connection is None:
        return "it does not belong to a connection: choose one with --connection"
    try:
        pack = renormalise(letter.record)
    except InvalidRecordError as exc:
        return f"it still cannot be counted: {exc.message}"
    if pack is None:
        return "this version still does not recognise it as usage; a newer one may"
    attribution = Attribution.model_validate(pack.attribution)
    return UsageBatch(
        connection_id=connection,
        client=pack.client,
        provider=pack.provider,
        session_id=pack.session_id,
        attribution=attribution,
        events=[UsageEvent(**event) for event in pack.events],
    )


async def send(kafka: KafkaSettings, topics: Topics, rows: Sequence[Row]) -> None:
    """Append usage messages, each to the partition of its session; returns when all are acknowledged.

    The number of partitions is Kafka's, since this may run where the deployment's settings are not: the lowest of the
    topics that were created with the same one, because a count may have been raised since.

    Raises:
        UnreachableError: Kafka did not accept them, or the topic does not exist; sending all of them again is harmless.

    """
    try:
        topic = topics.usage.name
        created_alike = (topic, topics.session_hours_changelog.name, topics.session_hour_rows.name)
        counts = [len(await partitions_of(kafka, one)) for one in created_alike]
        partitions = min((count for count in counts if count), default=0)
        if not counts[0]:
            raise UnreachableError(
                f"topic {topic} does not exist", "first start a worker or gateway of that deployment"
            )
        headers = schema_of(UsageBatch).headers
        async with producing(kafka, MANY) as producer:
            pending = [
                await producer.send(topic, value, key=key, partition=partition_of(key, partitions), headers=headers)
                for key, value in rows
            ]
            for sent in pending:
                await sent
    except (KafkaError, OSError) as exc:
        raise unreachable(kafka, exc, "take the messages", "run it again: nothing is counted twice") from exc
