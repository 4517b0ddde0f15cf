"""Every test that docs/threat-model.md names must exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()


def test_every_threat_names_an_existing_test_or_is_marked_not_covered() -> None:
    threats = [line for line in PAGE.splitlines() if line.count(" | ") == 2 and not line.startswith("| threat")]
    assert len(threats) > 25
    for line in threats:
        shown = line.strip("| ").split(" | ")[-1]
        if shown == "-":
            assert "**not covered" in line, line
            continue
        file = None
        for name in shown.replace("`", "").split(", "):
            path, _, test = name.partition(" (")[0].partition("::")
            file = (ROOT / path if path.startswith("deploy/") else ROOT / "tests" / path) if path else file
            assert file is not None, line
            assert file.is_file(), name
            assert not test or re.search(rf"def {re.escape(test)}\(", file.read_text()), name
