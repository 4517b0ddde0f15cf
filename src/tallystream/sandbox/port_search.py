"""Evaluates Port's search queries on entities: nested `{combinator, rules}`, with the commonly used operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tallystream.schemas.errors import PermanentError

Entity = Mapping[str, Any]
META = {
    "$identifier": "identifier", "$title": "title", "$blueprint": "blueprint", "$team": "team", "$icon": "icon",
    "$createdAt": "createdAt", "$updatedAt": "updatedAt", "$datasource": "datasource",
}  # fmt: skip
PRESET_DAYS = {
    "today": (0, 1), "tomorrow": (1, 2), "yesterday": (-1, 0), "lastDay": (-1, 1), "lastWeek": (-7, 1),
    "last2Weeks": (-14, 1), "lastMonth": (-30, 1), "last3Months": (-91, 1), "last6Months": (-182, 1),
    "last12Months": (-365, 1),
}  # fmt: skip


class UnsupportedQueryError(PermanentError):
    """The sandbox does not support a rule of Port. This is an error, so that it is not taken for `no matches`."""

    code = "unsupported_query"


def matches(query: Mapping[str, Any], entity: Entity, now: float) -> bool:
    """Tell whether an entity satisfies a query.

    Raises:
        UnsupportedQueryError: the query has a rule the sandbox does not know.

    """
    results = (
        matches(rule, entity, now) if "combinator" in rule else _rule(rule, entity, now) for rule in query["rules"]
    )
    # Every rule is evaluated, so that an unsupported one is always noticed.
    every = list(results)
    return all(every) if query["combinator"] == "and" else any(every)


def _rule(rule: Mapping[str, Any], entity: Entity, now: float) -> bool:
    operator = rule["operator"]
    if operator == "relatedTo":
        return _related(rule, entity)
    if "property" not in rule or operator not in _OPERATORS:
        raise UnsupportedQueryError(f"the sandbox does not know the rule {sorted(rule)} with operator {operator!r}")
    if not isinstance(rule["property"], str) or (isinstance(rule.get("value"), Mapping) and "context" in rule["value"]):
        raise UnsupportedQueryError("the sandbox has no users, so rules with a context mean nothing in it")
    return _OPERATORS[operator](value_of(entity, rule["property"]), rule.get("value"), now)


def value_of(entity: Entity, name: str) -> Any:
    """Return a property, a relation's target, or a meta property such as `$title`."""
    if name in META:
        return entity.get(META[name])
    if name in entity["properties"]:
        return entity["properties"][name]
    return entity["relations"].get(name)


def _related(rule: Mapping[str, object], entity: Entity) -> bool:
    """Follow one hop, from the entity to its relation target. Further hops are not supported."""
    if rule.get("direction") == "downstream":
        raise UnsupportedQueryError("the sandbox follows relations upstream only")
    wanted = rule["value"] if isinstance(rule["value"], list) else [rule["value"]]
    targets = [one for value in entity["relations"].values() for one in (value if isinstance(value, list) else [value])]
    return any(one in targets for one in wanted)


def _contains(have: object, want: object) -> bool:
    if isinstance(have, str):
        return isinstance(want, str) and want in have
    return isinstance(have, list) and want in have


def _many(have: object, want: object) -> bool:
    have_all = have if isinstance(have, list) else [have]
    return isinstance(want, list) and any(one in have_all for one in want)


def _order(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any, float], bool]:
    def judge(have: object, want: object, _: float) -> bool:
        if isinstance(have, bool) or isinstance(want, bool) or have is None or want is None:
            return False
        if isinstance(have, str) and isinstance(want, str):
            return compare(_moment(have) or have, _moment(want) or want) if _alike(have, want) else False
        numbers = isinstance(have, int | Decimal) and isinstance(want, int | Decimal)
        return numbers and compare(have, want)

    return judge


def _alike(one: str, other: str) -> bool:
    return (_moment(one) is None) == (_moment(other) is None)


def _between(have: object, want: object, now: float) -> bool:
    if not isinstance(have, str) or not isinstance(want, Mapping) or (moment := _moment(have)) is None:
        return False
    if "preset" in want:
        midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        first, last = (midnight + timedelta(days=days) for days in PRESET_DAYS[want["preset"]])
        return first <= moment < last
    start, end = _moment(want["from"]), _moment(want["to"])
    return start is not None and end is not None and start <= moment <= end


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _texts(test: Callable[[str, str], bool]) -> Callable[[Any, Any, float], bool]:
    return lambda have, want, _: isinstance(have, str) and isinstance(want, str) and test(have, want)


def _empty(have: object) -> bool:
    return have is None or (isinstance(have, Sequence | Mapping) and not have)


_OPERATORS: dict[str, Callable[[Any, Any, float], bool]] = {
    "=": lambda have, want, now: _between(have, want, now) if isinstance(want, Mapping) else have == want,
    "!=": lambda have, want, _: have != want,
    "contains": lambda have, want, _: _contains(have, want),
    "doesNotContains": lambda have, want, _: not _contains(have, want),
    "containsAny": lambda have, want, _: _many(have, want),
    "in": lambda have, want, _: _many(have, want),
    "notIn": lambda have, want, _: not _many(have, want),
    "beginsWith": _texts(str.startswith),
    "doesNotBeginsWith": lambda have, want, now: not _texts(str.startswith)(have, want, now),
    "endsWith": _texts(str.endswith),
    "doesNotEndsWith": lambda have, want, now: not _texts(str.endswith)(have, want, now),
    "isEmpty": lambda have, _, __: _empty(have),
    "isNotEmpty": lambda have, _, __: not _empty(have),
    ">": _order(lambda have, want: have > want),
    ">=": _order(lambda have, want: have >= want),
    "<": _order(lambda have, want: have < want),
    "<=": _order(lambda have, want: have <= want),
    "between": _between,
    "notBetween": lambda have, want, now: not _between(have, want, now),
}
