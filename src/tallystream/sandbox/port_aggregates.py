"""Aggregation properties, calculated when an entity is read. Port calculates them every quarter of an hour.

Sums and counts over entities that relate to this one by the relation of the path filter; other functions, and paths of
several relations, are not supported: they are an error, so that they are not taken for zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallystream.sandbox.port_search import UnsupportedQueryError, matches
from tallystream.sandbox.port_store import Store


def aggregated(store: Store, blueprint: str, identifier: str, now: float) -> dict[str, Any]:
    """Return the aggregation properties of an entity.

    Raises:
        UnsupportedQueryError: the sandbox does not calculate one of them.

    """
    rules: Mapping[str, Any] = store.blueprint(blueprint).get("aggregationProperties") or {}
    return {name: _value(store, identifier, rule, now) for name, rule in rules.items()}


def _value(store: Store, identifier: str, rule: Mapping[str, Any], now: float) -> Any:
    spec, paths = rule["calculationSpec"], rule.get("pathFilter") or []
    if len(paths) != 1 or len(paths[0]["path"]) != 1 or paths[0].get("fromBlueprint") != rule["target"]:
        raise UnsupportedQueryError("the sandbox aggregates over one relation of the target, named by pathFilter")
    relation = paths[0]["path"][0]
    found = []
    for one in store.entities(rule["target"]):
        target = one["relations"].get(relation)
        if identifier in (target if isinstance(target, list) else [target]) and (
            "query" not in rule or matches(rule["query"], one, now)
        ):
            found.append(one)
    if spec["func"] == "count":
        return len(found)
    if spec["func"] != "sum" or spec["calculationBy"] != "property":
        raise UnsupportedQueryError(f"the sandbox does not calculate {spec['func']}")
    return sum(one["properties"].get(spec["property"]) or 0 for one in found)
