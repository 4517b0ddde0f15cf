"""The order of test files: those that may take longest come first, so that processes end at about the same time."""

from __future__ import annotations

import pytest


def longest_first(items: list[pytest.Item]) -> None:
    """Sort files by the longest timeout of their tests; files with the same one keep their order."""
    limits: dict[str, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        limit = float(marker.args[0]) if marker is not None and marker.args else 0.0
        limits[str(item.path)] = max(limits.get(str(item.path), 0.0), limit)
    items.sort(key=lambda item: -limits[str(item.path)])
