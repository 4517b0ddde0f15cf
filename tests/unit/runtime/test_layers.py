"""The engine does not import Faust, and no module of the runtime imports one that does."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import tallystream.streams.runtime

ROOT = Path(tallystream.streams.runtime.__file__).parent
PREFIX = "tallystream.streams.runtime"


def modules() -> dict[str, Path]:
    """Return the runtime's files by module name."""
    named = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        named[".".join((PREFIX, *parts))] = path
    return named


def imports(path: Path, known: set[str]) -> set[str]:
    """Return which of `known` a file imports, those for type checking only included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & known


def test_runtime_has_no_import_cycle() -> None:
    files = modules()
    graph = {name: imports(path, set(files)) for name, path in files.items()}
    assert sum(map(len, graph.values())) > 30
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"these import each other: {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_engine_and_memory_host_run_without_faust() -> None:
    wanted = [f"{PREFIX}.memory", f"{PREFIX}.engine", "tallystream.agents.session_cost.agent"]
    code = f"import sys, {', '.join(wanted)}; sys.exit('faust' in sys.modules or 'mode' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
