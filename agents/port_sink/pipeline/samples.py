"""A sample of each kind of records, to try mappings on: `port mapping test FILE --input DIR/session.json`. What is
sensitive in it is masked, and only this user can read it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from tallystream.agents.port_sink.pipeline.masking import masked
from tallystream.schemas import exact

log = structlog.get_logger()
MOST = 5
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW


class Samples:
    """Stores the first records of each kind in a directory, and hands them to `show`, masked. Without either it does
    nothing.
    """

    def __init__(self, directory: Path | None, show: Callable[[str, list[Any]], None] | None = None) -> None:
        self._directory = directory
        self._show = show
        self._seen: set[str] = set()

    def keep(self, kind: str, records: Sequence[Mapping[str, object]]) -> None:
        """Store records of a kind, once; a failure is only logged."""
        if kind in self._seen or not records or (self._directory is None and self._show is None):
            return
        self._seen.add(kind)
        first = list(records[:MOST])
        if self._show is not None:
            self._show(kind, masked(first))
        if self._directory is None:
            return
        path = self._directory / f"{re.sub(r'[^A-Za-z0-9]+', '-', kind).strip('-')}.json"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_sample(path, first)
        except (OSError, TypeError) as exc:
            log.warning("no_sample", kind=kind, why=type(exc).__name__)


def write_sample(path: Path, records: object) -> None:
    """Write records (exact JSON) to a file of this user's, masked.

    Raises:
        OSError: it cannot be written, or is a link.

    """
    with os.fdopen(os.open(path, FLAGS, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)  # it may have been there, with another mode
        file.write(exact.dumps(masked(records)) + "\n")
