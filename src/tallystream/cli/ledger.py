"""Reads cost tables from the ledger instead of the topics, if it holds all that the topics held at the start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tallystream.cli.options import cluster
from tallystream.cli.output.consoles import err_console

if TYPE_CHECKING:
    from tallystream.agents.cost_query import Query
    from tallystream.agents.coverage import WitnessedHour
    from tallystream.agents.ledger.store.database import Database
    from tallystream.cli.output.cost_table import Shown
    from tallystream.settings.settings import Settings
    from tallystream.streams.identity import Identity
    from tallystream.streams.kafka.topic_settings import TopicSpec
    from tallystream.streams.topic_ends import Ends

T = TypeVar("T")
WAIT = 1.5
"""Seconds to wait for a ledger that is almost caught up. Reading the topics would take about as long or longer."""
CLOSE = 20_000
"""A ledger that is at most this many records behind counts as almost caught up."""
POLL = 0.05


@dataclass(frozen=True)
class Printed:
    """The rows have been printed; `skipped` records are not cost rows."""

    skipped: int


async def answer(settings: Settings, query: Query, limit: int, now_ns: int, form: str) -> Shown | Printed | None:
    """Return the table from the ledger, or None when it cannot answer. A `limit` of 0 asks for all rows. Very many rows
    as json or csv, which is `form`, are printed as they are read.

    Raises:
        UnreachableError: Kafka did not answer, or the ledger failed after the first rows were printed.

    """

    def ask(database: Database) -> Shown | Printed:
        from tallystream.agents.ledger.queries.cost import cost_table, skipped_records
        from tallystream.agents.ledger.queries.cost_lines import CostLines
        from tallystream.agents.ledger.queries.first_rows import first_rows

        if form in ("json", "csv"):
            lines = CostLines(database, query, now_ns)
            if lines.suits:
                from tallystream.cli.output.cost_lines import write_lines

                skipped = skipped_records(database)
                write_lines(database, lines, now_ns, form)
                return Printed(skipped)
        first = first_rows(database, query, limit, now_ns) if limit else None
        return cost_table(database, query) if first is None else first

    topics = settings.topics()
    return await current(settings, (topics.session_hour_rows, *([topics.witness] if query.shares else [])), ask)


async def current(settings: Settings, topics: Sequence[TopicSpec], ask: Callable[[Database], T]) -> T | None:
    """Ask the ledger if it holds all that the topics hold now; None when it does not, or does not exist.

    Raises:
        UnreachableError: Kafka did not answer.

    """
    from tallystream.agents.ledger.config import sources_of
    from tallystream.agents.ledger.errors import LedgerDamagedError, LedgerUnfitError, LedgerUnreachableError

    place = settings.ledger_place()
    if place.url is None and not place.file.exists():
        return None
    from tallystream.streams.topic_ends import topic_ends

    named = [one.name for one in sources_of(settings.topics())]
    identity, ends = await topic_ends(cluster(settings), settings.topics().prefix, named, {one.name for one in topics})
    if not ends:
        return None
    try:
        return await _ask(settings, identity, ends, ask)
    except (LedgerUnreachableError, LedgerUnfitError, LedgerDamagedError) as exc:
        if place.url is not None:
            err_console.print(f"{exc.message}; reading Kafka instead.", style="yellow", markup=False)
        return None


async def _ask(settings: Settings, identity: Identity, ends: Ends, ask: Callable[[Database], T]) -> T | None:
    from tallystream.agents.ledger.store.open import open_database

    database = open_database(settings.ledger_place(), read_only=True)
    try:
        for _ in range(int(WAIT / POLL)):
            with database.reading():
                behind = _behind(database, identity, ends)
                if behind == 0:
                    return ask(database)
            if behind is None or behind > CLOSE:
                break
            await asyncio.sleep(POLL)
    finally:
        database.close()
    return None


def _behind(database: Database, identity: Identity, ends: Ends) -> int | None:
    """Return how many offsets are missing. None: the ledger is another deployment's, or cannot hold some rows."""
    from tallystream.agents.ledger.migrations import get_meta
    from tallystream.agents.ledger.positions import identity_of, positions
    from tallystream.agents.ledger.schema import VERSION

    if not database.tables() or get_meta(database).get("schema_version") != str(VERSION):
        return None
    if not identity.matches(identity_of(database)):
        return None
    unfit = database.rows("SELECT DISTINCT topic FROM unreadable WHERE reason = 'unfit'")
    if {str(topic) for (topic,) in unfit} & {topic for topic, _ in ends}:
        return None
    have = positions(database)
    return sum(max(0, end - (have[place].offset if place in have else 0)) for place, end in ends.items())


async def rebuilt(settings: Settings, topics: Sequence[TopicSpec], ask: Callable[[Database], T]) -> T:
    """Read topics, where they exist, into a ledger that exists only for this question, and ask it.

    Raises:
        UnreachableError: Kafka did not answer.

    """
    import tempfile
    from pathlib import Path

    from tallystream.agents.ledger.apply import Writer
    from tallystream.agents.ledger.config import LedgerPlace
    from tallystream.agents.ledger.store.open import open_database
    from tallystream.streams.identity import read_identity
    from tallystream.streams.kafka.follower import TopicFollower
    from tallystream.streams.kafka.reader import partitions_of

    kafka, prefix = cluster(settings), settings.topics().prefix
    names = [topic.name for topic in topics if await partitions_of(kafka, topic.name)]
    with tempfile.TemporaryDirectory(prefix="tallystream-") as directory:
        database = open_database(LedgerPlace(prefix, Path(directory)))
        try:
            writer = Writer(database, settings.topics())
            writer.claim(await read_identity(kafka, prefix, names))
            if names:
                async with TopicFollower(kafka, names, {}) as follower:
                    while follower.behind:
                        writer.apply(await follower.poll())
            return ask(database)
        finally:
            database.close()


async def witnesses(settings: Settings) -> list[WitnessedHour]:
    """Return what the topic of witnesses says of each session."""
    from tallystream.agents.ledger.queries.coverage import AFTER_ALL, CoverageRange, witnessed_hours

    wanted = CoverageRange(0, AFTER_ALL, hourly=False)
    return await rebuilt(
        settings, (settings.topics().witness,), lambda database: list(witnessed_hours(database, wanted))
    )
