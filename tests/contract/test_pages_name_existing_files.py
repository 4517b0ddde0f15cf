"""Every file and folder that a page names must exist, and every relative link must lead to a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
)
FOLDERS = "agents|benchmarks|deploy|docs|examples|requirements|schemas|src|streams|tests"
NAMED = re.compile(rf"`((?:{FOLDERS})/[^`\s]*)`")
LINKED = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


def alternatives(path: str) -> list[str]:
    """Return the paths that a name with braces stands for: `a/{b,c}.py` is a/b.py and a/c.py."""
    before, brace, rest = path.partition("{")
    if not brace:
        return [path]
    inside, _, after = rest.partition("}")
    return [before + one + after for one in inside.split(",")]


@pytest.mark.parametrize("page", PAGES)
def test_every_path_on_the_page_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    named = {one for path in NAMED.findall(text) if "NAME" not in path for one in alternatives(path.partition("::")[0])}
    missing = {path for path in named if not (any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists())}
    missing |= {link for link in LINKED.findall(text) if not ((ROOT / page).parent / link).exists()}
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    folder = ROOT / "tests" / "integration" / "port_sink"
    missing = []
    for path, name in re.findall(r"`([\w/]+\.py)::(\w+)`", text):
        file = ROOT / path if "/" in path else folder / path
        if not file.exists() or f"def {name}(" not in file.read_text():
            missing.append(f"{path}::{name}")
    assert not missing


def test_architecture_page_names_an_existing_file_for_each_hop() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.partition("| hop | file | then |")[2].partition("\n\n")[0]
    rows = [line.split("|")[2:4] for line in table.splitlines() if line.count("|") == 4 and "---" not in line]
    assert len(rows) > 10
    for first, then in rows:
        (path,) = re.findall(r"`([^`]+)`", first)
        assert (ROOT / path).exists(), path
        for name in re.findall(r"`([\w/]+\.\w+)`", then):
            places = (ROOT, (ROOT / path).parent, (ROOT / path).parent.parent)
            assert any((place / name).is_file() for place in places), f"{path}: {name}"
