"""Dead letters back to the usage topic: those that hold an event, or enough of its record, and would be counted now.

Nothing is marked: an event that was counted already, by an earlier replay or by a client that sent it again, is known
by its id and is not counted again. What would only be refused once more is not sent, and the reason is said.

    undecodable, unrecognised_usage, invalid_counts, no_session, no_time
                        a record with enough of its fields: once this version knows how to count it
    from_the_future     once its time lies less than a day ahead
    invalid_message     while the usage topic keeps the message, once this version reads it (`kept_messages`)
    unknown_connection  when told which connection it belongs to
    too_late, closed    not in this deployment: its hour has been removed from the state, and a total never starts again
    beyond_dedupe       not in this deployment: it may have been counted, and its id is forgotten
    row_full            not in this deployment: the row is as full as it was
    conflicting_counts  never: its request is counted, with the larger counts

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
from tallystream.streams.gateway.message import partition_of
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.producer import MANY, producing
from tallystream.streams.kafka.reader import partitions_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.service.clock import utc

OF_RECORDS = frozenset(
    {Reason.UNDECODABLE, Reason.UNRECOGNISED_USAGE, Reason.INVALID_COUNTS, Reason.NO_SESSION, Reason.NO_TIME}
)
"""Reasons of letters that hold a record's fields, not an event: they are normalised again."""
DAY_NS = 24 * HOUR_NS
FOR_GOOD = {
    Reason.TOO_LATE: "its hour is closed in this deployment: --into another one",
    Reason.CLOSED: "its hour is closed in this deployment: --into another one",
    Reason.BEYOND_DEDUPE: "it may have been counted in this deployment: --into another one",
    Reason.ROW_FULL: "its row is full in this deployment: --into another one",
}


@dataclass(frozen=True)
class Into:
    """Where letters are replayed into. `own` is the deployment that refused them."""

    own: bool
    lateness: timedelta
    connection: str | None = None
    """Owner of events whose ingest id belongs to no connection."""


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
    """Return the letter's events as the usage message they were, or why there is none."""
    record = letter.record
    if letter.reason is Reason.CONFLICTING_COUNTS:
        return "its request is counted already, with the larger counts"
    if letter.reason in OF_RECORDS and record:
        return _normalised(letter, into)
    if letter.reason is Reason.UNKNOWN_CONNECTION:
        if into.connection is None:
            return "it belongs to no connection: --connection says to which"
        provider = next((one.provider for one in NORMALISERS if one.client == letter.client), None)
        record = {
            "connection_id": into.connection,
            "client": letter.client,
            "provider": provider,
            "session_id": letter.session_id,
            "events": [record],
        }
    if letter.reason is Reason.INVALID_MESSAGE and not record:
        return "its message is no longer in the usage topic, or is still none that this version reads"
    try:
        return UsageBatch.model_validate(record)
    except ValidationError:
        return "it holds no whole event: only a client can send it again"


def _normalised(letter: DeadLetter, into: Into) -> UsageBatch | str:
    """Return a record's usage by the rules of this version, or why it still has none."""
    connection = letter.connection_id or into.connection
    if connection is None:
        return "it belongs to no connection: --connection says to which"
    try:
        pack = renormalise(letter.record)
    except InvalidRecordError as exc:
        return f"it still cannot be counted: {exc.message}"
    if pack is None:
        return "it still is no event that this version knows to cost: a newer one may"
    attribution = Attribution(**pack.attribution)
    return UsageBatch(
        connection_id=connection,
        client=pack.client,
        provider=pack.provider,
        session_id=pack.session_id,
        attribution=attribution,
        events=[UsageEvent(**event) for event in pack.events],
    )


async def send(kafka: KafkaSettings, topic: str, rows: Sequence[Row]) -> None:
    """Append usage messages, each where its session's others are; returns when all are acknowledged.

    Raises:
        UnreachableError: Kafka did not take them, or there is no such topic; sending all of them again does no harm.

    """
    try:
        partitions = len(await partitions_of(kafka, topic))
        if not partitions:
            raise UnreachableError(f"there is no topic {topic}", "start a worker or a gateway of that deployment first")
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
