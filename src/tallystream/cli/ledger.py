"""Reads cost tables from the ledger instead of the topics, if it holds all that the topics held at the start."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tallystream.cli.options import cluster, err_console

if TYPE_CHECKING:
    from tallystream.agents.cost_query import Query
    from tallystream.agents.ledger.store.database import Database
    from tallystream.cli.output.cost_table import Shown
    from tallystream.settings.settings import Settings
    from tallystream.streams.identity import Identity

WAIT = 1.5
"""Seconds to wait for a ledger that is almost caught up. Reading the topics would take about as long or longer."""
CLOSE = 20_000
"""A ledger that is at most this many records behind counts as almost caught up."""
POLL = 0.05


async def answer(settings: Settings, query: Query, limit: int, now_ns: int) -> Shown | None:
    """Return the table from the ledger, or None when it cannot answer. A `limit` of 0 asks for all rows.

    Raises:
        UnreachableError: Kafka did not answer.

    """
    from tallystream.agents.ledger.errors import LedgerDamagedError, LedgerUnfitError, LedgerUnreachableError

    place = settings.ledger_place()
    if place.url is None and not place.file.exists():
        return None
    identity, ends = await _extent(settings)
    if not ends:
        return None
    try:
        return await _ask(settings, query, limit, now_ns, identity, ends)
    except (LedgerUnreachableError, LedgerUnfitError, LedgerDamagedError) as exc:
        if place.url is not None:
            err_console.print(f"{exc.message}; reading Kafka instead.", style="yellow", markup=False)
        return None


async def _ask(
    settings: Settings, query: Query, limit: int, now_ns: int, identity: Identity, ends: Mapping[int, int]
) -> Shown | None:
    from tallystream.agents.ledger.queries.cost import SortedTable, can_sort, cost_table
    from tallystream.agents.ledger.store.open import open_database

    topic = settings.topics().session_hour_rows.name
    database = open_database(settings.ledger_place(), read_only=True)
    try:
        for _ in range(int(WAIT / POLL)):
            with database.reading():
                behind = _behind(database, identity, topic, ends)
                if behind == 0:
                    if limit and can_sort(query):
                        return SortedTable(database, query, limit, now_ns)
                    return cost_table(database, query)
            if behind is None or behind > CLOSE:
                break
            await asyncio.sleep(POLL)
    finally:
        database.close()
    return None


def _behind(database: Database, identity: Identity, topic: str, ends: Mapping[int, int]) -> int | None:
    """Return how many offsets are missing. None: the ledger is another deployment's, or cannot hold some rows."""
    from tallystream.agents.ledger.apply import identity_of, positions
    from tallystream.agents.ledger.schema import VERSION, get_meta

    if not database.tables() or get_meta(database).get("schema_version") != str(VERSION):
        return None
    if not identity.matches(identity_of(database)):
        return None
    if database.rows("SELECT 1 FROM unreadable WHERE topic = ? AND reason = 'unfit' LIMIT 1", (topic,)):
        return None
    have = positions(database)
    return sum(
        max(0, end - (have[topic, partition].offset if (topic, partition) in have else 0))
        for partition, end in ends.items()
    )


async def _extent(settings: Settings) -> tuple[Identity, dict[int, int]]:
    """Return the identity of the topics, and the current end offsets of the rows topic by partition."""
    from aiokafka import TopicPartition
    from aiokafka.errors import KafkaError

    from tallystream.agents.ledger.small_topics import sources_of
    from tallystream.streams.identity import read_identity
    from tallystream.streams.kafka.consumer import new_consumer
    from tallystream.streams.kafka.errors import unreachable
    from tallystream.streams.kafka.lifecycle import opened
    from tallystream.streams.kafka.reader import partitions_of

    kafka, topics = cluster(settings), settings.topics()
    topic = topics.session_hour_rows
    names = [one.name for one in sources_of(topics)]
    try:
        async with asyncio.timeout(30), opened(new_consumer(kafka)) as consumer:
            looking = asyncio.create_task(read_identity(kafka, topics.prefix, names))
            try:
                partitions = await partitions_of(kafka, topic.name)
                at = [TopicPartition(topic.name, partition) for partition in partitions]
                if at:
                    consumer.assign(at)
                ends = await consumer.end_offsets(at) if at else {}
                return await looking, {place.partition: end for place, end in ends.items()}
            finally:
                looking.cancel()
    except (KafkaError, OSError, TimeoutError) as exc:
        raise unreachable(kafka, exc) from exc
