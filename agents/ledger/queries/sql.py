"""Free SQL, read-only: queries cannot change anything.

SQLite lacks exact decimals. So that `cost_usd` can still be selected, compared, sorted and added up, connections for
queries get their own views with that column as text, a collation that compares such text as numbers, and exact versions
of `sum` and `avg`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation, localcontext

from tallystream.agents.ledger.amounts import join_money
from tallystream.agents.ledger.config import LedgerPlace
from tallystream.agents.ledger.errors import QueryError
from tallystream.agents.ledger.schema import VIEWS, views
from tallystream.agents.ledger.store.database import Row
from tallystream.schemas.money import to_usd

HINT = f"one SELECT on these views: {', '.join(VIEWS)} (docs/ledger.md describes them)"
_FIRST = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*([a-z]+)", re.IGNORECASE | re.DOTALL)
_READS = frozenset({"select", "with", "values", "table", "explain"})
_DIGITS = 60
_INT64 = 2**63
_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})


@dataclass(frozen=True)
class Result:
    """The result of a query; `rows` is read while the connection is open."""

    columns: tuple[str, ...]
    rows: Iterator[Row]


@contextmanager
def query(place: LedgerPlace, text: str) -> Iterator[Result]:
    """Run a query in a separate connection.

    Raises:
        QueryError: it is not read-only, or the database rejects it.
        LedgerUnreachableError: the ledger does not exist or does not answer.

    """
    first = _FIRST.match(text)
    if first is None or first[1].lower() not in _READS:
        raise QueryError("only queries that read are run", HINT)
    with (_postgres if place.url is not None else _sqlite)(place, text) as result:
        yield result


@contextmanager
def _sqlite(place: LedgerPlace, text: str) -> Iterator[Result]:
    from tallystream.agents.ledger.store.sqlite import DIALECT, SQLiteDatabase

    database = SQLiteDatabase(place.file, read_only=True)
    try:
        connection = database.connection
        connection.execute("PRAGMA query_only=OFF")  # the file is open read-only; what follows is in memory
        connection.create_function("tallystream_usd", 2, _usd, deterministic=True)
        connection.create_collation("usd", _compare)
        connection.create_aggregate("sum", 1, ExactSum)  # type: ignore[arg-type]  # typeshed wants no float
        connection.create_aggregate("avg", 1, ExactMean)  # type: ignore[arg-type]
        for name, select in views(DIALECT, "CAST(tallystream_usd($hi, $lo) AS TEXT) COLLATE usd").items():
            connection.execute(f"CREATE TEMP VIEW {name} AS {select}")
        connection.execute("PRAGMA query_only=ON")
        connection.set_authorizer(_authorize)
        try:
            cursor = connection.execute(text)
            columns = tuple(column[0] for column in cursor.description or ())
            yield Result(columns, _translated(cursor))
        except (sqlite3.Error, sqlite3.Warning) as exc:
            raise QueryError(f"SQLite does not take the query: {exc}", HINT) from exc
    finally:
        database.close()


def _translated(cursor: sqlite3.Cursor) -> Iterator[Row]:
    try:
        yield from cursor
    except sqlite3.Error as exc:
        raise QueryError(f"SQLite gave up: {exc}", HINT) from exc


def _authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
    if action in _ALLOWED and (second or first or "").lower() != "load_extension":
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


@contextmanager
def _postgres(place: LedgerPlace, text: str) -> Iterator[Result]:
    import psycopg

    from tallystream.agents.ledger.store.postgres import PostgresDatabase, schema_name

    assert place.url is not None
    database = PostgresDatabase(place.url, schema_name(place.prefix), read_only=True)
    try:
        with database.reading():
            database.rows("SELECT 1")  # from here on the transaction cannot become a writing one
            try:
                # Prepared, because the server then accepts only a single statement.
                cursor = database.connection.execute(text.encode(), prepare=True)
                columns = tuple(column.name for column in cursor.description or ())
                yield Result(columns, iter(cursor))
            except psycopg.Error as exc:
                said = (str(exc).strip() or type(exc).__name__).splitlines()[0]
                raise QueryError(f"PostgreSQL does not take the query: {said}", HINT) from exc
    finally:
        database.close()


# -- exact dollars in SQLite


def _usd(hi: int | None, lo: int | None) -> str | None:
    pico = join_money(hi, lo)
    return None if pico is None else to_usd(pico)


def _compare(one: str, other: str) -> int:
    """Compare as numbers; what is not a number comes before them, as text."""
    a, b = _number(one), _number(other)
    if a is None or b is None:
        left, right = (a is not None, one), (b is not None, other)
        return (left > right) - (left < right)
    return (a > b) - (a < b)


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


class ExactSum:
    """`sum` that is exact for whole numbers of any size and for decimals as text; those give text."""

    def __init__(self) -> None:
        self._whole = 0
        self._exact: Decimal | None = None
        self._float: float | None = None
        self.count = 0

    def step(self, value: object) -> None:
        """Add a value."""
        if value is None:
            return
        self.count += 1
        if isinstance(value, int):
            self._whole += value
        elif isinstance(value, str) and (number := _number(value)) is not None:
            with localcontext() as context:
                context.prec = _DIGITS
                self._exact = (self._exact or Decimal(0)) + number
        else:
            self._float = (self._float or 0.0) + (value if isinstance(value, float) else 0.0)

    def total(self) -> int | Decimal | float | None:
        """Return the sum."""
        if not self.count:
            return None
        if self._float is not None:
            return self._float + self._whole + float(self._exact or 0)
        return self._whole if self._exact is None else self._exact + self._whole

    def finalize(self) -> int | str | float | None:
        """Return it as SQLite takes it."""
        total = self.total()
        if isinstance(total, Decimal):
            return _plain(total)
        if isinstance(total, int) and not -_INT64 <= total < _INT64:
            return str(total)
        return total


class ExactMean(ExactSum):
    """`avg`: of decimals as text exact to 28 digits, else as SQLite's own."""

    def finalize(self) -> str | float | None:
        """Return the mean."""
        total = self.total()
        if total is None:
            return None
        return _plain(total / self.count) if isinstance(total, Decimal) else total / self.count


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
