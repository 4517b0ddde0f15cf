"""A sample of each kind of records, to try mappings on: `port mapping test FILE --input DIR/session.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from tallystream.schemas import exact

log = structlog.get_logger()
MOST = 5


class Samples:
    """Stores the first records of each kind; without a directory it does nothing."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._seen: set[str] = set()

    def keep(self, kind: str, records: Sequence[Mapping[str, object]]) -> None:
        """Store records of a kind, once; a failure is only logged."""
        if self._directory is None or kind in self._seen or not records:
            return
        self._seen.add(kind)
        path = self._directory / f"{re.sub(r'[^A-Za-z0-9]+', '-', kind).strip('-')}.json"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            path.write_text(exact.dumps(list(records[:MOST])) + "\n")
        except (OSError, TypeError) as exc:
            log.warning("no_sample", kind=kind, why=type(exc).__name__)
