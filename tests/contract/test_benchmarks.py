"""`make bench`: it measures everything that writes a page, and a part that fails does not stop the others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmarks.everything import PAGES, ROOT, Part, parts, run

NEEDS_RECORDINGS = {"witnesses"}
"""They read recordings that are not part of the project."""


def test_every_benchmark_that_writes_a_page_is_a_part() -> None:
    found = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if '"--report"' in path.read_text()}
    known = {part.module for part in parts(Path("collector"), Path("streams"))}
    assert known == found - NEEDS_RECORDINGS - {"everything"}


def test_pages_have_the_sections_of_their_parts() -> None:
    for part in parts(Path("collector"), Path("streams")):
        source = (ROOT / "benchmarks" / f"{part.module}.py").read_text()
        sections = re.findall(r'(?:publish|replace_section)\([^"]*?"([a-z-]+)"', source)
        page = (PAGES / part.page).read_text()
        assert sections, part.module
        assert all(f"<!-- {section} -->" in page for section in sections), part.module


def test_failing_part_is_named_and_the_others_are_measured(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    # `report` is a module of functions, so running it succeeds at once
    chosen = [Part(module, (), (), "benchmarks.md", 1) for module in ("absent", "report")]
    assert run(chosen, tmp_path, quick=False) == 1
    shown = capfd.readouterr().out
    assert "report (2 of 2, about 1 minutes to go)" in shown
    assert re.search(r"absent +FAILED", shown)
    assert re.search(r"report +measured", shown)
