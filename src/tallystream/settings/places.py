"""Settings that name several files: paths separated by commas, each a file or a folder of files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tallystream.schemas.errors import UsageError

DEFAULT = "default"
"""Stands for the file that comes with the product."""


def named_files(text: str | None, setting: str, suffixes: Collection[str]) -> list[Path | None]:
    """Return the files in order; None stands for `default`. A folder means its files with these suffixes, by name.

    Raises:
        UsageError: a path does not exist, or a folder has no such file.

    """
    if text is None:
        return []
    if Path(text).is_file():
        return [Path(text)]  # a comma may be a part of its name
    found: list[Path | None] = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        path = Path(part)
        if part == DEFAULT:
            found.append(None)
        elif path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.suffix in suffixes and one.is_file())
            if not inside:
                raise UsageError(f"the folder {path} has no {' or '.join(suffixes)} files", f"{setting} names it")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"{path} cannot be read: there is no such file or folder", f"{setting} names it")
    return found


def with_added(text: str | None, path: Path, *, default: bool) -> str:
    """Return a setting that also names another file; `default` begins it if it was unset."""
    have = [one for one in (text or (DEFAULT if default else "")).split(",") if one]
    return ",".join([*have, *([] if str(path) in have else [str(path)])])
