"""The tables of an answer as CSV (RFC 4180), safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from tallystream.console import models, overview

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
"""A negative amount begins like a formula and is none."""


def to_csv(answer: BaseModel, name: str | None = None) -> str:
    """Return the rows of a table of an answer, by default of its main one."""
    found = tables(answer)
    rows = [_flat(row) for row in found.get(name or "", next(iter(found.values())))]
    header = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in header])
    return out.getvalue()


def tables(answer: BaseModel) -> Mapping[str, Iterable[Mapping[str, Any]]]:
    """Return the tables of an answer by name, the main one first."""
    if isinstance(answer, overview.Overview):
        return {"shares": _shares(answer), "hours": _rows(answer.hours), "periods": _rows(answer.periods)}
    if isinstance(answer, models.SessionDetail):
        return {
            "buckets": _rows(answer.buckets),
            "session": _rows([answer.session]),
            "charges": [of | charge for of, why in _explained(answer) for charge in _rows(why.charges)],
            "prices": [of | step for of, why in _explained(answer) for step in _rows(why.steps)],
            "children": _rows(answer.children),
            "deadletters": _rows(answer.dead_letters),
        }
    found: dict[str, Iterable[Mapping[str, Any]]] = {}
    for name in ("rows", "days", "connections", "billing", "components", "reasons", "causes", "findings", "sums"):
        if isinstance(value := getattr(answer, name, None), list):
            found[name] = _rows(value)
    return found or {"rows": []}


def _rows(found: Iterable[BaseModel]) -> list[dict[str, Any]]:
    return [one.model_dump(exclude={"explanation"}) for one in found]


def _shares(answer: overview.Overview) -> list[dict[str, Any]]:
    return [
        {"by": kind.removesuffix("s"), "name": share.name} | share.totals.model_dump()
        for kind in ("models", "teams", "agents", "connections", "clients")
        for share in getattr(answer, kind)
    ]


def _explained(answer: models.SessionDetail) -> Iterable[tuple[dict[str, Any], models.Explanation]]:
    for one in answer.buckets:
        of = {"hour": one.hour, "model": one.model, "service_tier": one.service_tier, "speed": one.speed}
        yield of, one.explanation


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
