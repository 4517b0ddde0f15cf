"""What can go wrong in the ledger alone."""

from __future__ import annotations

from tallystream.schemas.errors import RetryableError, UnfitError, UnreachableError, UsageError


class LedgerUnreachableError(UnreachableError):
    """The database does not answer, or there is none yet. Nothing is lost: the topics hold every row."""

    code = "ledger_unreachable"


class LedgerUnfitError(UnfitError):
    """The database is of a newer release, or refuses what the ledger must do in it."""

    code = "ledger_unfit"


class LedgerReplacedError(RetryableError):
    """The database belongs to another deployment now, or another ledger writes it: begin again."""

    code = "ledger_replaced"


class QueryError(UsageError):
    """A query that the database does not take; its own words are the message."""

    code = "query"


class LedgerDamagedError(RetryableError):
    """SQLite itself says that the file is corrupt: it is renamed, and made anew out of the topics."""

    code = "ledger_damaged"
