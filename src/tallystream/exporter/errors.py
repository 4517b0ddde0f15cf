"""What can go wrong in the exporter alone."""

from __future__ import annotations

from tallystream.schemas.errors import UnfitError


class CountersUnusableError(UnfitError):
    """The file of the counters is damaged, of another version, or cannot be written.

    Permanent: a counter that began again at zero would look like a restart, so the exporter stops instead.
    """
