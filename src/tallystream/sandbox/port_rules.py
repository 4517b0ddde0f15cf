"""Port's checks beyond its OpenAPI: entities against their blueprint, and blueprints against each other.

Taken from Port's published rules: a property has its blueprint's type, format and enum; properties and relations that
the blueprint does not have are refused; a required property is neither missing nor null; null clears an optional one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jsonschema_rs

JUDGED_FORMATS = frozenset({"date-time", "url", "email", "idn-email", "ipv4", "ipv6"})
"""Formats that are JSON Schema's too (`url` is its `uri`); Port's own ones are not looked into."""


class EntityRules:
    """The compiled rules of one blueprint's entities."""

    def __init__(self, blueprint: Mapping[str, Any]) -> None:
        schema = blueprint["schema"]
        self.required = tuple(schema.get("required", ()))
        self.relations: Mapping[str, Any] = blueprint.get("relations") or {}
        self._judge = jsonschema_rs.Draft202012Validator(
            {
                "type": "object",
                "properties": {name: _property(rule) for name, rule in schema["properties"].items()},
                "additionalProperties": False,
            },
            validate_formats=True,
        )

    def problem(self, entity: Mapping[str, Any]) -> str | None:
        """Return what is wrong with an entity, or None."""
        properties = {name: value for name, value in entity["properties"].items() if value is not None}
        for error in self._judge.iter_errors(properties):
            where = "/".join(map(str, error.instance_path))
            return f"properties{'/' if where else ''}{where}: {error.message[:200]}"
        for name in self.required:
            if name not in properties:
                return f"properties: must have required property '{name}'"
        for name, target in entity["relations"].items():
            rule = self.relations.get(name)
            if rule is None:
                return f"relations: the blueprint has no relation '{name}'"
            if rule.get("many", False) != isinstance(target, list) and target is not None:
                return f"relations/{name}: must be {'a list of identifiers' if rule.get('many') else 'one identifier'}"
        for name, rule in self.relations.items():
            if rule.get("required") and not entity["relations"].get(name):
                return f"relations: must have required relation '{name}'"
        return None


def blueprint_problem(blueprint: Mapping[str, Any], others: Collection[str]) -> tuple[int, str] | None:
    """Return status and reason if a blueprint that conforms to the OpenAPI is still refused."""
    schema = blueprint["schema"]
    for name in schema.get("required", ()):
        if name not in schema["properties"]:
            return 422, f"schema/required: property '{name}' does not exist"
    for name, rule in (blueprint.get("relations") or {}).items():
        if rule["target"] != blueprint["identifier"] and rule["target"] not in others:
            return 404, f"relations/{name}: the blueprint '{rule['target']}' was not found"
        if rule.get("many") and rule.get("required"):
            return 422, f"relations/{name}: a relation to many cannot be required"
    try:
        EntityRules(blueprint)
    except ValueError as exc:
        return 422, f"schema: {str(exc).splitlines()[0][:200]}"
    return None


def _property(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a property."""
    kept = {
        name: value
        for name, value in rule.items()
        if name in ("type", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems")
    }
    if rule.get("format") in JUDGED_FORMATS:
        kept["format"] = "uri" if rule["format"] == "url" else rule["format"]
    if isinstance(rule.get("items"), Mapping):
        kept["items"] = _property(rule["items"])
    return kept
