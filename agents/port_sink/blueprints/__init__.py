"""The blueprints: three from Port's page on Codex and OpenAI, and five of our own.

Those of the page differ in two places: Port's own schema does not support `format: "date"`, so `date` is `date-time`
here, and a model says whether OpenAI still lists it. `coding_agent_session_hour` is off by default, because it creates
an entity for each hour of each session.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from importlib.resources import files
from typing import Any

__all__ = [
    "LATER",
    "MODEL",
    "OURS",
    "OWNERSHIP",
    "PAGE",
    "SESSION",
    "SESSION_HOUR",
    "SYSTEM",
    "Blueprint",
    "fitting",
    "load",
    "ordered",
    "targets",
]

Blueprint = dict[str, Any]

MODEL = "openai_model"
PAGE = ("openai_daily_usage", "openai_model_usage", MODEL)
SESSION = "coding_agent_session"
SESSION_HOUR = "coding_agent_session_hour"
COST_HOUR = "coding_agent_cost_hour"
OURS = (
    "coding_agent_connection",
    SESSION,
    SESSION_HOUR,
    COST_HOUR,
    "coding_agent_bill_day",
)


LATER: Mapping[str, frozenset[str]] = {
    SESSION: frozenset({"agent", "billing"}),
    SESSION_HOUR: frozenset({"agent"}),
    COST_HOUR: frozenset({"agent_names"}),
    MODEL: frozenset({"listed", "unlisted_since"}),
}
"""Properties that a later release gave to a blueprint of ours. Where Port has the blueprint without them, they are left
out of entities, which Port would refuse otherwise, until `tallystream port apply` adds them."""
SYSTEM = frozenset({"_team", "_user"})
"""Port's own blueprints of teams and users, which accounts have since January 2025. An entity of theirs *is* a team or
a user: creating one creates the team or user (port-labs/port-docs, docs/sso-rbac/users-and-teams/
manage-users-teams.md, "Ownership & user management"). So we relate to those that exist and never create any."""
OWNERSHIP: Mapping[str, Mapping[str, str]] = {
    SESSION: {"port_team": "_team", "port_user": "_user", "port_service": "service"},
}
"""Relations of our blueprints to blueprints that are not ours, by blueprint, with their targets. They are part of a
blueprint where Port has their target, and an entity has them where Port has the entity they name."""


def load(*, session_hours: bool = False, ownership: bool = True) -> dict[str, Blueprint]:
    """Return the blueprints by identifier, each after those it relates to; without `ownership`, none relates to a
    blueprint that is not ours.
    """
    names = [name for name in (*PAGE, *OURS) if session_hours or name != SESSION_HOUR]
    folder = files("tallystream.agents.port_sink.blueprints")
    loaded = ordered(json.loads(folder.joinpath(f"{name}.json").read_text()) for name in names)
    return loaded if ownership else fitting(loaded, ())


def fitting(ours: Mapping[str, Blueprint], others: Container[str]) -> dict[str, Blueprint]:
    """Return blueprints without the relations to owners that Port does not have: it would refuse the blueprint.

    `others` are the blueprints of `OWNERSHIP` that Port has.
    """
    fit = {}
    for name, one in ours.items():
        missing = {key for key, target in OWNERSHIP.get(name, {}).items() if target not in others}
        relations = {key: rule for key, rule in (one.get("relations") or {}).items() if key not in missing}
        fit[name] = {**one, "relations": relations} if missing else one
    return fit


def ordered(blueprints: Iterable[Mapping[str, Any]]) -> dict[str, Blueprint]:
    """Return blueprints by identifier so that each comes after those it relates to; cycles keep their order."""
    left = {blueprint["identifier"]: dict(blueprint) for blueprint in blueprints}
    done: dict[str, Blueprint] = {}
    while left:
        free = [name for name, one in left.items() if not (targets(one) & left.keys()) - {name}]
        for name in free or [next(iter(left))]:
            done[name] = left.pop(name)
    return done


def targets(blueprint: Mapping[str, Any]) -> set[str]:
    """Return the blueprints that a blueprint relates to."""
    return {relation["target"] for relation in (blueprint.get("relations") or {}).values()}
