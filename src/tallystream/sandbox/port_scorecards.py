"""Scorecards of blueprints: stored, and refused where Port's rules for them are broken. Levels are not calculated.

The rules beyond the shape (port-labs/port-docs, docs/scorecards/concepts-and-structure.md): a rule has one of its
scorecard's levels, and not the first, which belongs to entities that pass no rule. That a condition's property exists
is a rule of the sandbox alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallystream.sandbox.port_store import ChangeRefusedError, not_found


class SandboxScorecards:
    """All scorecards, in memory."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], dict[str, Any]] = {}

    def of(self, blueprint: str) -> list[dict[str, Any]]:
        """Return the scorecards of a blueprint."""
        return [one for (owner, _), one in self._found.items() if owner == blueprint]

    def get(self, blueprint: str, identifier: str) -> dict[str, Any]:
        """Return one.

        Raises:
            ChangeRefusedError: it does not exist.

        """
        if (blueprint, identifier) not in self._found:
            raise not_found("scorecard", identifier)
        return self._found[blueprint, identifier]

    def create(self, blueprint: Mapping[str, Any], scorecard: Mapping[str, Any]) -> dict[str, Any]:
        """Create one.

        Raises:
            ChangeRefusedError: it exists, or breaks a rule.

        """
        if (blueprint["identifier"], scorecard["identifier"]) in self._found:
            raise ChangeRefusedError(409, "identifier_taken", f"a scorecard '{scorecard['identifier']}' already exists")
        return self._put(blueprint, scorecard)

    def change(self, blueprint: Mapping[str, Any], identifier: str, scorecard: Mapping[str, Any]) -> dict[str, Any]:
        """Replace one.

        Raises:
            ChangeRefusedError: it does not exist, or breaks a rule.

        """
        self.get(blueprint["identifier"], identifier)
        return self._put(blueprint, {**scorecard, "identifier": identifier})

    def _put(self, blueprint: Mapping[str, Any], scorecard: Mapping[str, Any]) -> dict[str, Any]:
        levels = [one["title"] for one in scorecard["levels"]]
        for rule in scorecard["rules"]:
            if rule["level"] not in levels[1:]:
                raise ChangeRefusedError(
                    422, "invalid_request", f"rules/{rule['identifier']}: it has none of the levels"
                )
            for condition in rule["query"]["conditions"]:
                if condition["property"] not in blueprint["schema"]["properties"]:
                    raise ChangeRefusedError(
                        422, "invalid_request", f"rules/{rule['identifier']}: no property '{condition['property']}'"
                    )
        found = {**scorecard, "blueprint": blueprint["identifier"]}
        self._found[blueprint["identifier"], scorecard["identifier"]] = found
        return found
