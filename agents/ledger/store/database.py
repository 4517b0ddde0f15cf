"""The interface of the ledger's database, so that everything else is written once.

SQL uses `?` for parameters and names in braces for syntax that differs between the two databases (see `Dialect`). All
methods block: from an event loop, call them in a thread, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from tallystream.agents.ledger.errors import LedgerUnreachableError

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Dialect:
    """Fills the braces of our SQL."""

    name: str
    words: Mapping[str, str]

    def sql(self, text: str) -> str:
        """Return the SQL for this database."""
        for name, word in self.words.items():
            text = text.replace("{" + name + "}", word)
        return text


class Database(Protocol):
    """One connection. Every method may raise LedgerUnreachableError: the connection cannot be used after that."""

    @property
    def dialect(self) -> Dialect:
        """The SQL dialect of this database."""
        ...

    @property
    def where(self) -> str:
        """Its location for people, without a password."""
        ...

    def try_lock(self) -> bool:
        """Become the only writer while this connection is open; return whether that succeeded."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Open a transaction, which is durable at the end or rolled back on an exception."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """Open a read-only snapshot of everything."""
        ...

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Run a statement; return how many rows it changed."""
        ...

    def load(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Append rows to a table in the fastest way."""
        ...

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return all rows of a query."""
        ...

    def stream(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[Row]:
        """Iterate over the rows of a query without loading all of them; only within `reading`."""
        ...

    def tables(self) -> bool:
        """Tell whether the ledger's tables exist."""
        ...

    def set_aside(self) -> str:
        """Rename the existing ledger, so that it is no longer used, and start an empty one; return the new name."""
        ...

    def close(self) -> None:
        """Close the connection, which also releases the lock."""
        ...


def no_ledger(where: str) -> LedgerUnreachableError:
    """Return the error for a ledger that was never written."""
    return LedgerUnreachableError(
        f"no ledger exists in {where}", "`tallystream up` and `tallystream ledger` build one from the topics"
    )


def pairs(number: int) -> str:
    """Return the SQL of `number` pairs of parameters, to the right of IN; nothing is in no pairs."""
    return f"VALUES {', '.join(['(?, ?)'] * number) or '(NULL, NULL)'}"
