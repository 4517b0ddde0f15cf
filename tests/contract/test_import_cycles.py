"""No module may import another one in a circle, not even for types only or inside a function.

Modules in a circle cannot be read in order, and cannot be tested without each other.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "tallystream.schemas": ROOT / "schemas",
    "tallystream.streams": ROOT / "streams",
    "tallystream.agents": ROOT / "agents",
    "tallystream": ROOT / "src" / "tallystream",
}


def modules() -> dict[str, Path]:
    """Return every file by the name it is imported by."""
    found = {}
    for package, folder in ROOMS.items():
        for path in folder.rglob("*.py"):
            inside = path.relative_to(folder)
            if package == "tallystream" and inside.parts[0] in ("schemas", "streams", "agents"):
                continue  # the links to the three other top-level folders
            parts = (package, *inside.with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(source: str, names: Mapping[str, Path]) -> set[str]:
    """Return which of `names` a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in names else node.module)
    return found & names.keys()


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the strongly connected components of more than one node (Tarjan's algorithm)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        path.append(node)
        for other in sorted(graph[node]):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in path:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            start = path.index(node)
            if len(path) - start > 1:
                found.append(set(path[start:]))
            del path[start:]

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return found


def test_modules_have_no_import_cycles() -> None:
    files = modules()
    assert len(files) > 200
    graph = {name: imported(path.read_text(), files) - {name} for name, path in files.items()}
    found = [sorted(circle) for circle in circles(graph)]
    assert found == []


def test_import_cycles_are_detected_in_any_kind_of_import() -> None:
    names = {name: Path() for name in ("x.a", "x.b", "x.c", "x.d")}
    sources = {
        "x.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from x.b import B",
        "x.b": "def later():\n    import x.c",
        "x.c": "from x import a, other",
        "x.d": "from x import a",
    }
    graph = {name: imported(source, names) for name, source in sources.items()}
    assert circles(graph) == [{"x.a", "x.b", "x.c"}]
