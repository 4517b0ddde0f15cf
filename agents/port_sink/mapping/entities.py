"""Converts entities to a form that Port accepts: legal identifiers, complete dates, numbers without float artefacts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from tallystream.agents.port_sink.blueprints import LATER, OWNERSHIP, SYSTEM
from tallystream.agents.port_sink.mapping.identifiers import encode
from tallystream.agents.port_sink.mapping.program import Failure, RawEntity
from tallystream.schemas.errors import PermanentError

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_NO_ZONE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?")
_SIMPLE = frozenset({str, int, bool, type(None)})
DIGITS = 15
"""Significant digits that a double always holds; further digits of JQ's results are artefacts (0.1 + 0.2)."""


class EntityKey(NamedTuple):
    """The identity of an entity in Port."""

    blueprint: str
    identifier: str


@dataclass(frozen=True)
class Entity:
    """`body` is sent in a bulk request; `digest` is equal for equal bodies."""

    key: EntityKey
    body: Mapping[str, Any]
    text: bytes
    digest: str

    def targets(self) -> Iterator[str]:
        """Yield the identifiers this entity relates to."""
        for value in (self.body.get("relations") or {}).values():
            for target in value if isinstance(value, list) else [value]:
                if isinstance(target, str):
                    yield target


class UnmappableError(PermanentError):
    """The mapping's result is not a valid entity: `field` of the mapping failed with `reason`."""

    code = "unmappable"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    def failure(self, expression: str) -> Failure:
        """Return it as the mapping's failure."""
        return Failure(self.field, expression, self.reason)


@dataclass(frozen=True)
class Rules:
    """A blueprint's requirements on entities that are checked here."""

    dates: frozenset[str]
    """Properties of format date-time."""
    required: tuple[str, ...]
    required_relations: tuple[str, ...]
    left_out: frozenset[str] = frozenset()
    """Properties of a later release (`blueprints.LATER`) that this blueprint does not have."""
    unrelated: frozenset[str] = frozenset()
    """Relations to owners (`blueprints.OWNERSHIP`) that this blueprint does not have, that are turned off, or whose
    targets are unknown: left out of entities, so that Port keeps what it has.
    """
    owners: Mapping[str, AbstractSet[str]] = field(default_factory=dict)
    """Relations that only name existing entities, with the identifiers of those."""

    @classmethod
    def of(cls, blueprint: Mapping[str, Any], existing: Mapping[str, AbstractSet[str]], *, ownership: bool) -> Rules:
        """Return a blueprint's rules."""
        schema, name = blueprint.get("schema") or {}, str(blueprint.get("identifier"))
        properties, relations = schema.get("properties") or {}, blueprint.get("relations") or {}
        ours = OWNERSHIP.get(name, {}).keys()
        looked_up = {
            key: rule["target"] for key, rule in relations.items() if key in ours or rule.get("target") in SYSTEM
        }
        return cls(
            frozenset(name for name, rule in properties.items() if rule.get("format") == "date-time"),
            tuple(schema.get("required") or ()),
            tuple(name for name, rule in relations.items() if rule.get("required")),
            LATER.get(name, frozenset()) - properties.keys(),
            frozenset(ours - relations.keys() if ownership else ours).union(
                key for key, target in looked_up.items() if target not in existing
            ),
            {key: existing[target] for key, target in looked_up.items() if target in existing},
        )


def rules(
    blueprints: Mapping[str, Mapping[str, Any]],
    existing: Mapping[str, AbstractSet[str]] | None = None,
    *,
    ownership: bool = True,
) -> dict[str, Rules]:
    """Return the rules of blueprints, by identifier. `existing` are the identifiers of the teams, users and services
    that Port has, by blueprint; a blueprint is missing while they are unknown.
    """
    return {name: Rules.of(blueprint, existing or {}, ownership=ownership) for name, blueprint in blueprints.items()}


def build(raw: RawEntity, row: Any, known: Mapping[str, Rules]) -> Entity:
    """Return the entity that a mapping gave for a row.

    Corrections: characters that Port refuses in identifiers and relations (`identifiers.encode`); a day, or a time
    without a zone, where the blueprint requires a date-time (read as UTC); digits that are float artefacts.

    Raises:
        UnmappableError: the identifier is missing, the blueprint is unknown, or a required property or relation is
            null.

    """
    name = _text(raw.get("blueprint"), "blueprint")
    blueprint = known.get(name)
    if blueprint is None:
        raise UnmappableError("blueprint", f"Port has no blueprint {name!r}")
    identifier = encode(_text(raw.get("identifier"), "identifier"))
    body: dict[str, Any] = {"identifier": identifier}
    for shown in ("title", "icon"):
        if raw.get(shown) is not None:
            body[shown] = raw[shown] if isinstance(raw[shown], str) else str(raw[shown])
    if raw.get("team") is not None:
        body["team"] = raw["team"]
    properties = body["properties"] = {
        key: value if type(value) in _SIMPLE else _tidy(value, row)
        for key, value in (raw.get("properties") or {}).items()
        if key not in blueprint.left_out
    }
    for key in blueprint.dates:
        if isinstance(properties.get(key), str):
            properties[key] = _whole_date(properties[key])
    relations = {
        key: _existing(found, blueprint.owners[key]) if key in blueprint.owners else found
        for key, value in (raw.get("relations") or {}).items()
        if key not in blueprint.unrelated
        for found in (_relation(value, key),)
    }
    if relations:
        body["relations"] = relations
    for required in blueprint.required:
        if properties.get(required) is None:
            raise UnmappableError(f"properties.{required}", "the blueprint requires it and it is null")
    for required in blueprint.required_relations:
        if not relations.get(required):
            raise UnmappableError(f"relations.{required}", "the blueprint requires it and it is null")
    text = orjson.dumps(body)
    digest = blake2b(orjson.dumps(body, option=orjson.OPT_SORT_KEYS), digest_size=12).hexdigest()
    return Entity(EntityKey(name, identifier), body, text, digest)


def _text(value: Any, field: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise UnmappableError(field, f"must give a text, gave {'an empty one' if value == '' else _shown(value)}")
    return str(value)


def _shown(value: Any) -> str:
    return orjson.dumps(value).decode()[:60]


def _whole_date(value: str) -> str:
    if _DAY.fullmatch(value):
        return f"{value}T00:00:00Z"
    return f"{value}Z" if _NO_ZONE.fullmatch(value) else value


def _tidy(value: Any, row: Any) -> Any:
    """Round what JQ calculated to 15 digits; a number that is in the row as it is stays as it is."""
    if isinstance(value, float):
        short = float(f"{value:.{DIGITS}g}")
        return value if short == value or any(value == one for one in _floats(row)) else short
    if isinstance(value, dict):
        return {key: _tidy(item, row) for key, item in value.items()}
    if isinstance(value, list):
        return [_tidy(item, row) for item in value]
    return value


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _floats(item)
    elif value is not None and not isinstance(value, str | bool | int):
        yield float(value)


def _existing(value: Any, identifiers: AbstractSet[str]) -> Any:
    """Return the first identifier that exists, or null; a search query for the target is left to Port."""
    candidates = value if isinstance(value, list) else [value]
    if isinstance(value, dict):
        return value
    return next((one for one in candidates if one in identifiers), None)


def _relation(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return encode(value) if value else None
    if isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            raise UnmappableError(f"relations.{name}", f"must give identifiers, gave {_shown(value)}")
        return [encode(item) for item in value if item]
    if value is None or isinstance(value, dict):
        return value
    raise UnmappableError(f"relations.{name}", f"must give an identifier, gave {_shown(value)}")
