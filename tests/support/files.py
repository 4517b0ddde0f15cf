"""Reads what programs have written, also while they run and replace their files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


def files_in(*places: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the files of these places with their bytes, without those that disappear meanwhile."""
    for place in places:
        for path in [place, *place.rglob("*")]:
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.read_bytes()
