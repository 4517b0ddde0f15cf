"""The order of test files: the processes of a run end at about the same time, and no core is idle until then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def longest_first(items: list[pytest.Item], is_waiting: Callable[[Path], bool]) -> None:
    """Sort files by the longest timeout of their tests, those that may take longest first.

    Of files with the same one, those that wait for processes and those that compute are mixed evenly, because a core is
    idle while only tests that wait are running. Each kind keeps its order.
    """
    limits: dict[Path, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        limit = float(marker.args[0]) if marker is not None and marker.args else 0.0
        limits[item.path] = max(limits.get(item.path, 0.0), limit)
    waiting = [file for file in limits if is_waiting(file)]
    computing = [file for file in limits if not is_waiting(file)]
    places = _spread(waiting) | _spread(computing)
    items.sort(key=lambda item: (-limits[item.path], places[item.path], item.path))


def _spread(files: list[Path]) -> dict[Path, float]:
    """Return places between 0 and 1 at equal distances."""
    return {file: (number + 0.5) / len(files) for number, file in enumerate(files)}
