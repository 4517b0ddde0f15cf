"""Prints the figures of a run, and writes them into a page, between the comments that mark their section."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path


def machine() -> str:
    """Return when and on what this is measured: the date, the version of Python, and the processors.

    Figures may only be compared with others of the same machine and Python.
    """
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    return f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} CPUs ({model})"


def publish(page: Path | None, name: str, note: str, text: str) -> None:
    """Print a table and, if a page is given, write it there below a note that says how it was measured.

    Raises:
        ValueError: the page has no such section.

    """
    print(text)
    if page is not None:
        replace_section(page, name, f"{note}\n\n{text}\n")


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
