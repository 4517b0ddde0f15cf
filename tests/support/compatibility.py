"""Checks whether a JSON Schema still accepts everything that an earlier version accepted and promises as much."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
SAME = ("pattern", "format", "const")


def problems(old: Schema, new: Schema) -> list[str]:
    """Return the incompatibilities, empty if there are none."""
    return _Comparison(old, new).compare(old, new, "$")


class _Comparison:
    """Two schema documents with their definitions."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old = old.get("$defs", {})
        self._new = new.get("$defs", {})

    def compare(self, old: Schema, new: Schema, path: str) -> list[str]:
        old, new = _resolved(old, self._old), _resolved(new, self._new)
        branches = new.get("anyOf", [new])
        found = []
        for before in old.get("anyOf", [old]):
            tried = [self._plain(_resolved(before, self._old), _resolved(after, self._new), path) for after in branches]
            nearest: list[str] = min(tried, key=len)
            found += nearest
        return found

    def _plain(self, old: Schema, new: Schema, path: str) -> list[str]:
        if old.get("type") != new.get("type") and new.get("type") is not None:
            return [f"{path}: type {old.get('type')} became {new['type']}"]
        found = [
            f"{path}: {rule} {_limit(old, rule)} became {new[rule]}"
            for rule in LOWER + UPPER + SAME
            if _tighter(old, new, rule)
        ]
        if "enum" in new and not set(old.get("enum", [old.get("const", object())])) <= set(new["enum"]):
            found.append(f"{path}: fewer values are allowed")
        if new.get("additionalProperties") is False and old.get("additionalProperties", True) is not False:
            found.append(f"{path}: further fields are no longer allowed")
        return found + self._members(old, new, path)

    def _members(self, old: Schema, new: Schema, path: str) -> list[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        found = [f"{path}.{name}: removed" for name in before if name not in after]
        required = set(new.get("required", [])) - set(old.get("required", []))
        found += [f"{path}.{name}: now required" for name in sorted(required)]
        for name in before:
            if name in after:
                found += self.compare(before[name], after[name], f"{path}.{name}")
        if "items" in old and "items" in new:
            found += self.compare(old["items"], new["items"], f"{path}[]")
        elif "items" in new:
            found.append(f"{path}[]: now constrained")
        return found


def _resolved(node: Schema, definitions: Schema) -> Schema:
    while "$ref" in node:
        node = definitions[node["$ref"].removeprefix("#/$defs/")]
    return node


def _limit(node: Schema, rule: str) -> Any:
    return node.get(rule, "anything")


def _tighter(old: Schema, new: Schema, rule: str) -> bool:
    if rule not in new:
        return False
    if rule not in old or rule in SAME:
        return bool(new[rule] != old.get(rule))
    return bool(new[rule] > old[rule] if rule in LOWER else new[rule] < old[rule])
