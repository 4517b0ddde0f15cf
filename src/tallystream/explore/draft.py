"""Drafts a blueprint and a mapping for an endpoint from the shape of its rows, for the user to edit and apply.

Both have Port's own format and avoid what Port refuses. Identifiers are reduced to allowed characters, dates become
date-times (Port has no format `date`), and no two rows of the sample share an identifier.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tallystream.explore.shapes import Shape

Row = Mapping[str, Any]
FORMATS = {"date-time": "date-time", "url": "url", "email": "email"}
UNFIT = "[^A-Za-z0-9@_.+:/=-]"
"""Characters not used in identifiers. Port's own rule is wider, as it allows all letters."""
_WORD = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class Draft:
    """A draft. `blueprint` has the format of Port's API, `mapping` that of its integrations."""

    blueprint: dict[str, Any]
    mapping: dict[str, Any]
    identity: tuple[str, ...]
    """JQ of the fields that identify the rows of the sample. Empty: none do, so the whole row makes the identifier."""


def draft(
    kind: str,
    rows: Sequence[Row],
    shape: Shape,
    *,
    selector: Mapping[str, object],
    identifier: str | None = None,
    buckets: Sequence[str] | None = None,
) -> Draft:
    """Draft a blueprint and mapping for the rows of the endpoint `kind`.

    `identifier` is the blueprint's, by default derived from `kind`. `buckets` gives the bucket of each row if the
    resource is polled in buckets, because a row itself does not name its bucket.
    """
    name = (identifier or "openai_" + _WORD.sub("_", kind).strip("_").lower())[:100]
    properties: dict[str, Any] = {}
    expressions: dict[str, str] = {}
    if buckets is not None:
        properties["bucket"] = {"title": "Bucket", "type": "string", "format": "date-time"}
        expressions["bucket"] = "$record.starts_at"
    for path, found in _leaves(shape):
        key = "_".join(path)
        rule, expression = _property(found, "." + ".".join(map(_member, path)))
        if rule is None or not re.fullmatch(r"[A-Za-z0-9@_=\\-]{1,100}", key):
            continue
        properties[key] = {"title": _title(key)} | rule
        expressions[key] = expression
    parts = _identity(rows, shape, buckets)
    blueprint = {
        "identifier": name,
        "title": _title(name)[:100],
        "schema": {"properties": properties, "required": []},
        "relations": {},
    }
    entity = {
        "identifier": f'{_joined(parts)} | gsub("{UNFIT}"; "-")',
        "title": ".name" if shape.always("name") else _joined(parts),
        "blueprint": f'"{name}"',
        "properties": expressions,
    }
    mapping = {
        "resources": [{"kind": kind, "selector": dict(selector), "port": {"entity": {"mappings": entity}}}],
    }
    return Draft(blueprint, mapping, parts)


def _property(shape: Shape, path: str) -> tuple[dict[str, Any] | None, str]:
    """Return the blueprint's rule for a field and the JQ for its value, or None if Port has no type for it."""
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
    """Return the fields. Those of nested objects are named by their path."""
    found = []
    for name, inner in shape.fields.items():
        if inner.kind == "object":
            found += _leaves(inner, (*path, name))
        else:
            found.append(((*path, name), inner))
    return found


def _identity(rows: Sequence[Row], shape: Shape, buckets: Sequence[str] | None) -> tuple[str, ...]:
    """Return the JQ of the fields that identify a row: its id, or else all its names.

    All names are used, even if fewer identify the rows of the sample. On another day two rows may differ only in a name
    that was left out, and one would overwrite the other.
    """
    if shape.always("id") and _distinct(rows, ("id",)):
        return (".id",)
    names = tuple(
        name
        for name, found in shape.fields.items()
        if name != "object" and (found.kind in ("string", "boolean") or found.format == "epoch")
    )
    if not _distinct(rows, names, buckets):
        return ()
    return (*(() if buckets is None else ("$record.bucket",)), *(f".{_member(name)}" for name in names))


def _distinct(rows: Sequence[Row], names: tuple[str, ...], buckets: Sequence[str] | None = None) -> bool:
    seen = {
        (buckets[index] if buckets is not None else None, *(str(row.get(name)) for name in names))
        for index, row in enumerate(rows)
    }
    return len(seen) == len(rows)


def _joined(parts: tuple[str, ...]) -> str:
    """Return the JQ that joins the parts into one string."""
    if not parts:
        return "tojson | @base64"
    if len(parts) == 1:
        return f"{parts[0]} | tostring"
    return "[" + ", ".join(parts) + '] | map(if . == null then "none" else tostring end) | join("-")'


def _member(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else '"' + name.replace('"', '\\"') + '"'


def _title(name: str) -> str:
    words = [word for word in _WORD.split(name) if word]
    return (
        " ".join(word.upper() if word in ("id", "url", "api", "usd") else word.capitalize() for word in words) or name
    )
