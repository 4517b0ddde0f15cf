"""Errors that only the exporter raises."""

from __future__ import annotations

from tallystream.schemas.errors import UnfitError


class CountersUnusableError(UnfitError):
    """The file of the counters is damaged, of another version, or cannot be written.

    Permanent, because counters that start again at zero would look like a restart. The exporter stops instead.
    """
