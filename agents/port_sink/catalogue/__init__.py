"""What `tallystream port apply` puts into Port beside our blueprints: aggregation properties on teams, users and
services, a scorecard of bills, and a dashboard. `deploy/port` links to the files.

Sources of the rules: the shape of aggregation properties is in Port's OpenAPI (POST /v1/blueprints). A path filter
names the sessions' relation, because without one Port follows every path there is, such as through a user to all teams
of that user (OpenAPI, `pathFilter`; port-labs/port-docs has the same form, with the aggregated blueprint as
`fromBlueprint`). System blueprints can be extended in this way (port-labs/port-skills,
skills/port-context-lake/assets/team-aggregation-patch.json). Pages: see `pages`; scorecards: see `scorecards`.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

__all__ = ["PAGE", "SCORED", "aggregations", "dashboard", "scorecard"]

PAGE = "coding_agent_costs"
SCORED = "coding_agent_bill_day"
"""The blueprint of the scorecard: one entity a provider and day, so that its results are few."""
_OWNERS = ("team", "user", "service")


def aggregations() -> dict[str, dict[str, Any]]:
    """Return the parts that are added to blueprints which are not ours, by blueprint."""
    found = [_read(name) for name in _OWNERS]
    return {one["identifier"]: one for one in found}


def dashboard() -> dict[str, Any]:
    """Return the page, in the shape of Port's API."""
    return _read("dashboard")


def scorecard() -> dict[str, Any]:
    """Return the scorecard of `SCORED`, in the shape of Port's API."""
    return _read("scorecard")


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        files("tallystream.agents.port_sink.catalogue").joinpath(f"{name}.json").read_text()
    )
    return found
