"""A first blueprint and mapping for an endpoint, drafted from the shape of its rows: to be read, changed and applied.

Both are in Port's own shape. What Port would refuse is avoided: identifiers are reduced to the characters it allows,
dates become date-times (it has no format `date`), and two rows never share an identifier as far as the sample shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from tallystream.schemas.shapes import Shape

Row = Mapping[str, Any]
FORMATS = {"date-time": "date-time", "url": "url", "email": "email"}
UNFIT = "[^A-Za-z0-9@_.+:/=-]"
"""Characters that may not be in an identifier, narrower than Port's own rule: it allows all letters."""
MAX_PARTS = 6
"""Fields an identifier is made of at most."""
_WORD = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class Draft:
    """`blueprint` as Port's API takes it, `mapping` as its integrations do."""

    blueprint: dict[str, Any]
    mapping: dict[str, Any]
    identity: tuple[str, ...]
    """Fields that together tell the rows of the sample apart; empty: none do, the identifier is a hash of the row."""


def draft(
    kind: str, rows: Sequence[Row], shape: Shape, *, identifier: str | None = None, selector: Mapping[str, Any]
) -> Draft:
    """Draft for the rows of the endpoint `kind`; `identifier` is the blueprint's, by default made from `kind`."""
    name = identifier or "openai_" + _WORD.sub("_", kind).strip("_").lower()
    identity = _identity(rows, shape)
    properties: dict[str, Any] = {}
    expressions: dict[str, str] = {}
    for path, found in _leaves(shape):
        key = "_".join(path)
        rule, expression = _property(found, "." + ".".join(map(_member, path)))
        if rule is None or not re.fullmatch(r"[A-Za-z0-9@_=\\-]{1,100}", key):
            continue
        properties[key] = {"title": _title(key)} | rule
        expressions[key] = expression
    title = ".name" if shape.always("name") else _joined(identity)
    blueprint = {
        "identifier": name[:100],
        "title": _title(name)[:100],
        "schema": {"properties": properties, "required": []},
        "relations": {},
    }
    entity = {
        "identifier": f'{_joined(identity)} | gsub("{UNFIT}"; "-")',
        "title": title,
        "blueprint": f'"{name[:100]}"',
        "properties": expressions,
    }
    mapping = {
        "resources": [{"kind": kind, "selector": dict(selector), "port": {"entity": {"mappings": entity}}}],
    }
    return Draft(blueprint, mapping, identity)


def _property(shape: Shape, path: str) -> tuple[dict[str, Any] | None, str]:
    """Return the blueprint's rule for a field and the JQ for its value; None where Port has no type for it."""
    match shape.kind:
        case "string" if shape.format == "date":
            return {"type": "string", "format": "date-time"}, f'{path} | if . then . + "T00:00:00Z" else null end'
        case "string":
            return {"type": "string"} | ({"format": FORMATS[shape.format]} if shape.format in FORMATS else {}), path
        case "integer" if shape.format == "epoch":
            return {"type": "string", "format": "date-time"}, f"{path} | if . then todate else null end"
        case "integer" | "number":
            return {"type": "number"}, path
        case "boolean":
            return {"type": "boolean"}, path
        case "array":
            return {"type": "array"}, path
    return None, path


def _leaves(shape: Shape, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Shape]]:
    """Return the fields, those of nested objects under their path."""
    found = []
    for name, inner in shape.fields.items():
        if inner.kind == "object":
            found += _leaves(inner, (*path, name))
        else:
            found.append(((*path, name), inner))
    return found


def _identity(rows: Sequence[Row], shape: Shape) -> tuple[str, ...]:
    """Return the smallest set of fields whose values differ from row to row; names and ids before numbers."""
    if shape.always("id") and _distinct(rows, ("id",)):
        return ("id",)
    labels = [
        name
        for name, found in shape.fields.items()
        if name != "object" and (found.kind in ("string", "boolean") or found.format == "epoch")
    ]
    # A field that is the same in every row tells nothing apart, but its next value will.
    useful = [name for name in labels if len({str(row.get(name)) for row in rows}) > 1][:12]
    for size in range(1, min(MAX_PARTS, len(useful)) + 1):
        for names in combinations(useful, size):
            if _distinct(rows, names):
                return names
    return ()


def _distinct(rows: Sequence[Row], names: tuple[str, ...]) -> bool:
    return len({tuple(str(row.get(name)) for name in names) for row in rows}) == len(rows)


def _joined(names: tuple[str, ...]) -> str:
    """Return the JQ that joins the fields to one text."""
    if not names:
        return "tojson | @base64"
    if len(names) == 1:
        return f".{_member(names[0])} | tostring"
    return "[" + ", ".join(f".{_member(name)}" for name in names) + '] | map(. // "none" | tostring) | join("-")'


def _member(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else '"' + name.replace('"', '\\"') + '"'


def _title(name: str) -> str:
    words = [word for word in _WORD.split(name) if word]
    return (
        " ".join(word.upper() if word in ("id", "url", "api", "usd") else word.capitalize() for word in words) or name
    )
