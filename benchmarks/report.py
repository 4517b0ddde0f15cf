"""Writes the figures of a run into a page, between the comments that mark its section."""

from __future__ import annotations

import re
from pathlib import Path


def replace_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises:
        ValueError: the page has no such section.

    """
    before = page.read_text()
    section = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not section.search(before):
        raise ValueError(f"{page} has no section {name}")
    page.write_text(section.sub(lambda match: match[1] + "\n" + text + "\n" + match[2], before))
