"""The `__all__` of a package must name exactly what other packages import from it."""

from __future__ import annotations

import ast
import importlib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {"schemas": "tallystream.schemas", "streams": "tallystream.streams", "agents": "tallystream.agents",
          "src/tallystream": "tallystream"}  # fmt: skip


def packages() -> Iterator[tuple[str, Path]]:
    """Yield each package that has names of its own, with its file."""
    for folder, name in LAYERS.items():
        for path in sorted((ROOT / folder).rglob("__init__.py")):
            inner = path.parent.relative_to(ROOT / folder).parts
            if any(not isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body):
                yield ".".join((name, *inner)), path


PACKAGES = dict(packages())


@cache
def imported() -> dict[str, set[str]]:
    """Return which names the product's other files, tests, benchmarks and examples import, by module."""
    names: dict[str, set[str]] = defaultdict(set)
    for folder in (*LAYERS, "tests", "benchmarks", "examples", "deploy"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    names[node.module].update(alias.name for alias in node.names)
    return names


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_package_exports_exactly_what_others_import(package: str) -> None:
    module = importlib.import_module(package)
    said = list(getattr(module, "__all__", ()))
    assert len(said) == len(set(said)), "each name once"
    assert [name for name in said if not hasattr(module, name)] == []
    submodules = {path.stem for path in PACKAGES[package].parent.glob("*.py")} | {
        path.parent.name for path in PACKAGES[package].parent.glob("*/__init__.py")
    }
    assert imported()[package] - submodules - set(said) == set(), "imported, and not said to be exported"
