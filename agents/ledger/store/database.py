"""What the ledger needs of a database, so that everything else is written once.

SQL is written with `?` for parameters and with names in braces for what the two databases spell differently (see
`Dialect`). All methods block: whoever runs in an event loop calls them in a thread, one at a time.
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
    """One connection. Every method may raise LedgerUnreachableError: the connection is of no use after that."""

    @property
    def dialect(self) -> Dialect:
        """How SQL is spelled here."""
        ...

    @property
    def where(self) -> str:
        """Where it is, for people; holds no password."""
        ...

    def try_lock(self) -> bool:
        """Become the one writer, for as long as this connection lives; tell whether that worked."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Give a transaction: all of it is durable at the end, or nothing of it when an exception leaves."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """Give one consistent view of everything for as long as it is open; nothing can be written in it."""
        ...

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement; return how many rows it changed."""
        ...

    def load(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Append rows to a table, the fastest way there is."""
        ...

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a query."""
        ...

    def stream(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """Iterate over the rows of a query without holding them all; within `reading` only."""
        ...

    def tables(self) -> bool:
        """Tell whether the ledger's tables exist."""
        ...

    def set_aside(self) -> str:
        """Rename what is there, so that nothing reads it as ours, and begin an empty one; return its new name."""
        ...

    def close(self) -> None:
        """Close the connection, and with it give back the lock."""
        ...


def no_ledger(where: str) -> LedgerUnreachableError:
    """Return the error for a ledger that was never written."""
    return LedgerUnreachableError(
        f"there is no ledger in {where}", "`tallystream up` and `tallystream ledger` make one out of the topics"
    )
