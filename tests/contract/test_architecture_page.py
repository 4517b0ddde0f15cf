"""The page on the architecture names files that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_file_to_open_at_each_hop_is_there() -> None:
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
