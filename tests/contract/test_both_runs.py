"""`make test` leaves no test out: each is in exactly one of its two runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.conftest import HERE, START_PROCESSES
from tests.support.longest_first import longest_first

ELSEWHERE = {"tests/conformance"}
"""Folders of tests that `make conformance` runs."""


def test_each_test_is_in_exactly_one_run() -> None:
    """What is marked is in the second run only, and of the folders without processes all else is in the first."""
    recipe = (HERE.parent / "Makefile").read_text().partition("\ntest: lint")[2].partition("\nelse")[0]
    (first,) = re.findall(r"""TESTS='-m "not unmeasured" ([^']+)'""", recipe)
    (second,) = re.findall(r"BIN\)/pytest .* -m unmeasured (.+)$", recipe, re.MULTILINE)
    with_tests = {f"tests/{path.relative_to(HERE).parts[0]}" for path in HERE.rglob("test_*.py")}
    assert set(second.split()) == with_tests - ELSEWHERE
    assert set(first.split()) == set(second.split()) - {f"tests/{folder}" for folder in START_PROCESSES}


class Item:
    """As much of a test as its place depends on."""

    def __init__(self, file: str, timeout: float | None = None) -> None:
        self.path = Path(file)
        self.timeout = timeout

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return pytest.Mark(name, (self.timeout,), {}, _ispytest=True) if self.timeout else None


def test_long_files_come_first_and_waiting_and_computing_alternate() -> None:
    items = [Item("w1"), Item("w2"), Item("w2", 900), Item("w3"), Item("c1"), Item("c2"), Item("c3", 1800), Item("w1")]
    longest_first(items, lambda file: file.name.startswith("w"))  # type: ignore[arg-type]
    files = [item.path.name for item in items]
    assert files == ["c3", "w2", "w2", "c1", "w1", "w1", "c2", "w3"]
