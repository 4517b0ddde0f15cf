"""The content of Port: blueprints and their entities, and the rules for changing them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tallystream.sandbox.port_rules import EntityRules, blueprint_problem
from tallystream.schemas.errors import PermanentError

Entity = dict[str, Any]


class ChangeRefusedError(PermanentError):
    """A change that Port refuses, with `status`, `error` (a word) and a message."""

    code = "change_refused"

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error


def not_found(what: str, identifier: str) -> ChangeRefusedError:
    """Return the 404 for a blueprint or an entity."""
    return ChangeRefusedError(404, "not_found", f"{what} with identifier '{identifier}' was not found")


@dataclass(frozen=True)
class How:
    """The query parameters of an entity's change."""

    upsert: bool = False
    merge: bool = False
    create_missing_related_entities: bool = False
    validation_only: bool = False


@dataclass
class _Blueprint:
    definition: dict[str, Any]
    rules: EntityRules
    entities: dict[str, Entity] = field(default_factory=dict)


SINCE = "2025-01-14T00:00:00.000Z"
PEOPLE: tuple[dict[str, Any], ...] = (
    {
        "identifier": "_team", "title": "Team", "icon": "Team",
        "schema": {
            "properties": {
                "description": {"type": "string", "title": "Description"},
                "size": {"type": "number", "title": "Size"},
            },
            "required": [],
        },
        "relations": {},
    },
    {
        "identifier": "_user", "title": "User", "icon": "User",
        "schema": {
            "properties": {
                "status": {"type": "string", "title": "Status", "enum": ["Active", "Disabled", "Invited", "Staged"]},
                "port_role": {"type": "string", "title": "Port Role"},
                "port_type": {"type": "string", "title": "Port Type", "enum": ["Standard", "Service Account"]},
            },
            "required": [],
        },
        "relations": {},
    },
)  # fmt: skip
"""The blueprints of teams and users that an account has since January 2025. They can be extended, not deleted
(port-labs/port-docs, docs/sso-rbac/users-and-teams/manage-users-teams.md)."""


class Store:
    """Everything in memory. Methods that change something take the caller's User-Agent and the time (seconds).

    With `people` there are the blueprints of teams and users from the beginning.
    """

    def __init__(self, *, people: bool = False) -> None:
        self._blueprints: dict[str, _Blueprint] = {}
        for one in PEOPLE if people else ():
            stamps = {
                f"{what}{how}": by for what in ("created", "updated") for how, by in (("At", SINCE), ("By", "port"))
            }
            self._blueprints[one["identifier"]] = _Blueprint(dict(one) | stamps, EntityRules(one))
        self.writes = 0
        """Entities written so far, unchanged ones included."""

    def blueprints(self) -> list[dict[str, Any]]:
        """Return all blueprints in the order they were made."""
        return [blueprint.definition for blueprint in self._blueprints.values()]

    def blueprint(self, identifier: str) -> dict[str, Any]:
        """Return one blueprint.

        Raises:
            ChangeRefusedError: it does not exist.

        """
        return self._one(identifier).definition

    def create_blueprint(self, definition: Mapping[str, Any], agent: str, now: float) -> dict[str, Any]:
        """Create a blueprint.

        Raises:
            ChangeRefusedError: it exists, relates to one that does not, or contradicts itself.

        """
        identifier = definition["identifier"]
        if identifier in self._blueprints:
            raise ChangeRefusedError(
                409, "identifier_taken", f"a blueprint with identifier '{identifier}' already exists"
            )
        made = {"createdAt": moment(now), "createdBy": agent or "unknown"}
        return self._put(definition, made, {}, agent, now)

    def change_blueprint(
        self, identifier: str, definition: Mapping[str, Any], agent: str, now: float, *, whole: bool
    ) -> dict[str, Any]:
        """Replace a blueprint, or with `whole` false the fields given; its entities stay.

        Raises:
            ChangeRefusedError: it does not exist, or as for `create_blueprint`.

        """
        have = self._one(identifier)
        changed = dict(definition) if whole else have.definition | dict(definition)
        changed.setdefault("identifier", identifier)
        # The document lets a PATCH leave out what every property of a blueprint must have in the end.
        for name, rule in changed.get("schema", {}).get("properties", {}).items():
            if not isinstance(rule.get("type"), str):
                raise ChangeRefusedError(422, "invalid_request", f'schema/properties/{name}: "type" is required')
        stamps: tuple[str, ...] = ("createdAt", "createdBy")
        made = {name: have.definition[name] for name in stamps if name in have.definition}
        if changed["identifier"] != identifier:
            if changed["identifier"] in self._blueprints:
                raise ChangeRefusedError(409, "identifier_taken", "that identifier is taken")
            result = self._put(changed, made, have.entities, agent, now)
            del self._blueprints[identifier]
            return result
        return self._put(changed, made, have.entities, agent, now)

    def delete_blueprint(self, identifier: str) -> None:
        """Delete a blueprint and its entities.

        Raises:
            ChangeRefusedError: it does not exist, or another blueprint relates to it.

        """
        self._one(identifier)
        if identifier.startswith("_"):
            raise ChangeRefusedError(422, "invalid_request", f"'{identifier}' is a system blueprint")
        for name, other in self._blueprints.items():
            if name != identifier and any(rule["target"] == identifier for rule in other.rules.relations.values()):
                raise ChangeRefusedError(422, "has_dependents", f"the blueprint '{name}' relates to '{identifier}'")
        del self._blueprints[identifier]

    def entities(self, blueprint: str) -> list[Entity]:
        """Return a blueprint's entities in the order of their identifiers.

        Raises:
            ChangeRefusedError: the blueprint does not exist.

        """
        return [entity for _, entity in sorted(self._one(blueprint).entities.items())]

    def entity(self, blueprint: str, identifier: str) -> Entity:
        """Return one entity.

        Raises:
            ChangeRefusedError: it does not exist.

        """
        found = self._one(blueprint).entities.get(identifier)
        if found is None:
            raise not_found(f"entity of blueprint '{blueprint}'", identifier)
        return found

    def write(self, blueprint: str, given: Mapping[str, Any], how: How, agent: str, now: float) -> tuple[Entity, bool]:
        """Create or update an entity; return it and whether it is new.

        Raises:
            ChangeRefusedError: it exists and `upsert` is not set, it does not fit its blueprint, or it relates to
                something that does not exist.

        """
        kept = self._one(blueprint)
        identifier = given.get("identifier")
        if identifier is None:
            raise ChangeRefusedError(422, "invalid_request", "must have required property 'identifier'")
        if not isinstance(identifier, str):
            raise ChangeRefusedError(422, "unsupported", "the sandbox takes an identifier, not a search query for one")
        have = kept.entities.get(identifier)
        if have is not None and not how.upsert:
            raise ChangeRefusedError(
                409, "identifier_taken", f"an entity with identifier '{identifier}' already exists"
            )
        entity = _merged(have, given, merge=how.merge) if have else _fresh(blueprint, given)
        self._check(kept, entity, how, agent, now)
        if not how.validation_only:
            _stamp(entity, agent, now)
            kept.entities[identifier] = entity
            self.writes += 1
        return entity, have is None

    def patch(
        self, blueprint: str, identifier: str, given: Mapping[str, Any], how: How, agent: str, now: float
    ) -> Entity:
        """Change the fields given of an entity.

        Raises:
            ChangeRefusedError: it does not exist, or as for `write`.

        """
        have = self.entity(blueprint, identifier)
        changed = dict(given) | {"identifier": given.get("identifier", identifier)}
        entity = _merged(have, changed, merge=True)
        kept = self._one(blueprint)
        self._check(kept, entity, how, agent, now)
        _stamp(entity, agent, now)
        del kept.entities[identifier]
        kept.entities[entity["identifier"]] = entity
        self.writes += 1
        return entity

    def delete(self, blueprint: str, identifier: str, *, dependents: bool) -> None:
        """Delete an entity, and with `dependents` those that relate to it.

        Raises:
            ChangeRefusedError: it does not exist, or others relate to it and `dependents` is not set.

        """
        self.entity(blueprint, identifier)
        related = list(self._dependents(blueprint, identifier))
        if related and not dependents:
            raise ChangeRefusedError(409, "has_dependents", f"{len(related)} entities relate to '{identifier}'")
        del self._one(blueprint).entities[identifier]
        for name, dependent in related:
            if dependent in self._one(name).entities:
                self.delete(name, dependent, dependents=True)

    def _one(self, identifier: str) -> _Blueprint:
        found = self._blueprints.get(identifier)
        if found is None:
            raise not_found("blueprint", identifier)
        return found

    def _put(
        self, definition: Mapping[str, Any], made: dict[str, str], entities: dict[str, Entity], agent: str, now: float
    ) -> dict[str, Any]:
        if problem := blueprint_problem(definition, self._blueprints):
            status, message = problem
            raise ChangeRefusedError(status, "not_found" if status == 404 else "invalid_request", message)
        stamps = made | {"updatedAt": moment(now), "updatedBy": agent or "unknown"}
        blueprint = _Blueprint(dict(definition) | stamps, EntityRules(definition), entities)
        self._blueprints[definition["identifier"]] = blueprint
        return blueprint.definition

    def _check(self, kept: _Blueprint, entity: Entity, how: How, agent: str, now: float) -> None:
        if problem := kept.rules.problem(entity):
            raise ChangeRefusedError(422, "invalid_request", problem)
        for name, target, blueprint in _targets(kept.rules, entity):
            if target in self._one(blueprint).entities or target == entity["identifier"]:
                continue
            if not how.create_missing_related_entities:
                raise ChangeRefusedError(
                    404, "not_found",
                    f"relations/{name}: entity of blueprint '{blueprint}' with identifier '{target}' was not found",
                )  # fmt: skip
            if not how.validation_only:
                # As Port does: a bare entity that its own update fills in later, required properties or not.
                stub = _fresh(blueprint, {"identifier": target})
                _stamp(stub, agent, now)
                self._one(blueprint).entities[target] = stub

    def _dependents(self, blueprint: str, identifier: str) -> Iterator[tuple[str, str]]:
        for name, other in self._blueprints.items():
            for key, entity in other.entities.items():
                if any(
                    (target, where) == (identifier, blueprint) for _, target, where in _targets(other.rules, entity)
                ):
                    yield name, key


def _targets(rules: EntityRules, entity: Entity) -> Iterator[tuple[str, str, str]]:
    """Yield (relation, target's identifier, target's blueprint)."""
    for name, value in entity["relations"].items():
        rule = rules.relations.get(name)
        for target in value if isinstance(value, list) else [value]:
            if rule is not None and target is not None:
                if not isinstance(target, str):
                    raise ChangeRefusedError(
                        422, "unsupported", "the sandbox takes identifiers in relations, not search queries"
                    )
                yield name, target, rule["target"]


def _fresh(blueprint: str, given: Mapping[str, Any]) -> Entity:
    return {
        "identifier": given["identifier"],
        "title": given.get("title") or given["identifier"],
        "icon": given.get("icon"),
        "team": given.get("team"),
        "properties": dict(given.get("properties") or {}),
        "relations": dict(given.get("relations") or {}),
        "blueprint": blueprint,
    }


def _merged(have: Entity, given: Mapping[str, Any], *, merge: bool) -> Entity:
    """Return the entity after an update: merged field by field, or overridden whole."""
    if not merge:
        entity = _fresh(have["blueprint"], given)
        return entity | {"createdAt": have["createdAt"]}
    entity = have | {
        name: given[name] for name in ("identifier", "title", "icon", "team") if given.get(name) is not None
    }
    return entity | {
        "properties": have["properties"] | (given.get("properties") or {}),
        "relations": have["relations"] | (given.get("relations") or {}),
    }


def moment(now: float) -> str:
    """Return a time as Port writes it."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stamp(entity: Entity, agent: str, now: float) -> None:
    entity.setdefault("createdAt", moment(now))
    entity["updatedAt"] = moment(now)
    entity["datasource"] = agent
