"""Compares a scorecard in Port with ours, and puts ours into it. Rules and levels that users added are kept.

Source of the shape (scorecards are not in the subset of Port's OpenAPI that the sandbox has): port-labs/port-docs,
docs/scorecards/concepts-and-structure.md and examples.md. Of the routes: Port's API reference, "Create a scorecard" and
"Change a scorecard", which replaces the whole. The first level is for entities that pass no rule, so no rule has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallystream.agents.port_sink.blueprints.sync import BlueprintDifference, compare

Scorecard = dict[str, Any]
_LISTS = {"levels": "title", "rules": "identifier"}
"""By which field the items of a list are told apart."""
_FIELDS = ("identifier", "title", "filter", *_LISTS)


def differences(ours: Scorecard, theirs: Scorecard | None) -> list[BlueprintDifference]:
    """Return the changes that applying our scorecard would make."""
    where = f"scorecard {ours['identifier']}"
    if theirs is None:
        return [BlueprintDifference(where, "missing", "", None, ours)]
    found = [*compare(where, "title", ours["title"], theirs.get("title"))]
    for part, name in _LISTS.items():
        have = {one[name]: one for one in theirs.get(part) or ()}
        for one in ours[part]:
            path = f"{part}.{one[name]}"
            if one[name] not in have:
                found.append(BlueprintDifference(where, "added", path, None, one))
            else:
                found += compare(where, path, one, have[one[name]])
    return found


def merged(ours: Scorecard, theirs: Mapping[str, Any]) -> Scorecard:
    """Return their scorecard with ours put into it, with the fields that may be written."""
    found = {**theirs, "title": ours["title"]}
    for part, name in _LISTS.items():
        mine = {one[name]: one for one in ours[part]}
        have = list(theirs.get(part) or ())
        known = {one[name] for one in have}
        found[part] = [{**one, **mine.get(one[name], {})} for one in have] + [
            one for key, one in mine.items() if key not in known
        ]
    return {name: found[name] for name in _FIELDS if found.get(name) is not None}
