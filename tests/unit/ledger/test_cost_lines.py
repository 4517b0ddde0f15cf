"""Rows that are printed while they are read: what a user sees when there are many, and when the ledger fails midway."""

from __future__ import annotations

import contextlib
import io
import tracemalloc

import orjson
import pytest
from tests.support.ledger_rows import HOUR0, batches, bucket, row
from typing_extensions import override

from tallystream.agents.cost_query import Query
from tallystream.agents.ledger.apply import Writer
from tallystream.agents.ledger.queries.cost_lines import CostLines
from tallystream.agents.ledger.store.database import Database
from tallystream.agents.ledger.store.sqlite import SQLiteDatabase
from tallystream.cli.output.cost_lines import write_lines
from tallystream.schemas.errors import UnreachableError
from tallystream.schemas.hours import HOUR_NS
from tallystream.streams.identity import Identity
from tallystream.streams.kafka.topics import Topics

TOPICS = Topics("lines")
NOW = (HOUR0 + 50) * HOUR_NS
ROWS = 3000


@pytest.fixture
def many(sqlite: Database) -> Database:
    writer = Writer(sqlite, TOPICS)
    writer.claim(Identity("cluster", "lines", {}))
    history = [row(f"s{n}", HOUR0 + n % 40, [0, n], [bucket("m1", 10**9 + n)]) for n in range(ROWS)]
    for batch in batches(TOPICS.session_hour_rows.name, history, [1000]):
        writer.apply([batch])
    return sqlite


class Pipe(io.StringIO):
    """Reads nothing of what it is given, as `| wc -c` keeps nothing."""

    @override
    def write(self, text: str, /) -> int:
        return len(text)


def test_many_rows_are_not_in_memory_at_once(many: Database) -> None:
    with many.reading(), contextlib.redirect_stdout(io.StringIO()) as out:
        write_lines(many, CostLines(many, Query("session-hours"), NOW), NOW, "json")
    text = out.getvalue()
    assert len(orjson.loads(text)["rows"]) == ROWS
    with many.reading(), contextlib.redirect_stdout(Pipe()):
        tracemalloc.start()
        try:
            write_lines(many, CostLines(many, Query("session-hours"), NOW), NOW, "json")
            assert tracemalloc.get_traced_memory()[1] < len(text)
        finally:
            tracemalloc.stop()


def test_a_ledger_that_fails_midway_is_told(many: Database) -> None:
    assert isinstance(many, SQLiteDatabase)
    reader = SQLiteDatabase(many.path, read_only=True)

    class Closing(io.StringIO):
        @override
        def write(self, text: str, /) -> int:
            reader.close()
            return super().write(text)

    lines = CostLines(reader, Query("session-hours"), NOW)
    with contextlib.redirect_stdout(Closing()) as out, pytest.raises(UnreachableError, match="are not all"):
        write_lines(reader, lines, NOW, "csv")
    assert 0 < out.getvalue().count("\r\n") < ROWS, "some rows were printed, so that reading Kafka would repeat them"
