"""The main table of an answer as CSV (RFC 4180), safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from tallystream.console import overview

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
"""A negative amount begins like a formula and is none."""


def to_csv(answer: BaseModel) -> str:
    """Return the rows of an answer."""
    rows = [_flat(row) for row in _rows(answer)]
    header = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in header])
    return out.getvalue()


def _rows(answer: BaseModel) -> Iterable[Mapping[str, Any]]:
    if isinstance(answer, overview.Overview):
        for kind in ("models", "teams", "agents", "connections", "clients"):
            for share in getattr(answer, kind):
                yield {"by": kind.removesuffix("s"), "name": share.name} | share.totals.model_dump()
        return
    found: Sequence[BaseModel] = []
    for name in ("rows", "buckets", "connections", "days", "components"):
        if isinstance(value := getattr(answer, name, None), list):
            found = value
            break
    for one in found:
        yield one.model_dump(exclude={"explanation"})


def _flat(row: Mapping[str, object], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        elif isinstance(value, list):
            flat[before + name] = " ".join(map(str, value))
        else:
            flat[before + name] = value
    return flat


def _cell(value: object) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in value)
        return f"'{text}" if text.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
    return value
