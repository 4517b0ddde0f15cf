"""Every test that docs/conformance.md names must exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = re.sub(r"(?s)## Real clients.*?(?=\n## )", "", (ROOT / "docs" / "conformance.md").read_text())
"""Without the part on runs by hand, which names no tests."""
HEADS = ("| rule", "| test", "| sent by")


def test_every_rule_names_tests_that_exist() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(HEADS)]
    assert len(rows) > 30
    for row in rows:
        file = None
        shown = row.strip("| ").split("|")[-1].strip().replace("`", "")
        for name in re.sub(r" \([^)]*\)", "", shown).split(", "):
            path, _, test = name.partition("::")
            file = ROOT / "tests" / path if path else file
            assert file is not None, row
            assert file.is_file(), name
            assert not test or re.search(rf"def {re.escape(test)}\(", file.read_text()), name
