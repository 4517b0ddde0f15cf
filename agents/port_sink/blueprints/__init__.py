"""The blueprints: three from Port's page on Codex and OpenAI, and five of our own.

Those of the page are unchanged except for one word: Port's own schema does not support `format: "date"`, so `date` is
`date-time` here. `coding_agent_session_hour` is off by default, because it creates an entity for each hour of each
session.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

__all__ = ["LATER", "OURS", "PAGE", "SESSION_HOUR", "Blueprint", "load", "ordered", "targets"]

Blueprint = dict[str, Any]

PAGE = ("openai_daily_usage", "openai_model_usage", "openai_model")
SESSION_HOUR = "coding_agent_session_hour"
OURS = (
    "coding_agent_connection",
    "coding_agent_session",
    SESSION_HOUR,
    "coding_agent_cost_hour",
    "coding_agent_bill_day",
)


LATER: Mapping[str, frozenset[str]] = {"coding_agent_session": frozenset({"agent", "billing"})}
"""Properties that a later release gave to a blueprint of ours. Where Port has the blueprint without them, they are left
out of entities, which Port would refuse otherwise, until `tallystream port blueprints apply` adds them."""


def load(*, session_hours: bool = False) -> dict[str, Blueprint]:
    """Return the blueprints by identifier, each after those it relates to."""
    names = [name for name in (*PAGE, *OURS) if session_hours or name != SESSION_HOUR]
    folder = files("tallystream.agents.port_sink.blueprints")
    return ordered(json.loads(folder.joinpath(f"{name}.json").read_text()) for name in names)


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
