"""Errors of the ledger."""

from __future__ import annotations

from tallystream.schemas.errors import RetryableError, UnfitError, UnreachableError, UsageError


class LedgerUnreachableError(UnreachableError):
    """The database does not answer, or does not exist yet. No data is lost, because the topics have every row."""

    code = "ledger_unreachable"


class LedgerUnfitError(UnfitError):
    """The database is of a newer release, or refuses an operation that the ledger needs."""

    code = "ledger_unfit"


class LedgerReplacedError(RetryableError):
    """The database belongs to another deployment now, or another ledger writes it, so this one must start again."""

    code = "ledger_replaced"


class QueryError(UsageError):
    """The database rejects a query; the message is the database's own."""

    code = "query"


class LedgerDamagedError(RetryableError):
    """SQLite itself reports that the file is corrupt: it is renamed, and rebuilt from the topics."""

    code = "ledger_damaged"
