"""Repairs of expressions that do not do what was intended.

Each repair is one rule with a reason; a mapping that does not need any is unchanged. Rules work on the text of single
expressions, so that their effect can be shown: `tallystream port mapping test` prints them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple


class MappingRepair(NamedTuple):
    """A correction: `where` in the mapping, the text before and after (empty if it is not a single text), and why."""

    where: str
    was: str
    now: str
    why: str


_TEXT = r'"(?:[^"\\]|\\.)*"'
_TIME = re.compile(r"\.(?:aggregation_)?timestamp\b")
_AS_TEXT = re.compile(rf"\bsplit\s*\(|{_TEXT}\s*\+|\+\s*{_TEXT}")
_CONVERTED = re.compile(r"\b(tostring|strftime|strflocaltime|todate|todateiso8601|tojson|gmtime|with_dates)\b|@\w")
_CONSTANT = re.compile(rf"//\s*(?P<constant>{_TEXT}|-?\d+(?:\.\d+)?)")
_OPERAND = re.compile(r"(?P<before>^|\+)(?P<space>\s*)(?P<path>(?:\.[A-Za-z_]\w*)+)(?=\s*(?:\+|$))")
_STRINGS = re.compile(_TEXT)

_ALWAYS = frozenset({".connection_id", ".session_id", ".client", ".provider", ".hour", ".model", ".day"})
"""Fields of our own kinds that are never null."""

DATA_PATHS = {"/usage": ".data", "/models": ".data", "/dashboard/billing/usage": ".daily_costs"}
"""Paths of the lists in the responses of the page's endpoints."""


def expression(kind: str, field: str, source: str) -> tuple[str, list[MappingRepair]]:
    """Return an expression of a resource of `kind`, repaired; `field` is `identifier`, `properties.date`, ..."""
    repairs = []
    for rule in _RULES:
        changed, why = rule(kind, field, source)
        if why:
            repairs.append(MappingRepair(field, source, changed, why))
            source = changed
    return source, repairs


def _times(_kind: str, _field: str, source: str) -> tuple[str, str]:
    if not (_TIME.search(source) and _AS_TEXT.search(source)) or _CONVERTED.search(source):
        return source, ""
    return (
        f"with_dates | {source}",
        "OpenAI's timestamps are numbers and JQ cannot join a number to a text: they are read as dates first",
    )


def _constants(_kind: str, field: str, source: str) -> tuple[str, str]:
    if field != "identifier":
        return source, ""
    changed = _CONSTANT.sub('// error("what the identifier is made of is missing")', source)
    return changed, "" if changed == source else (
        "an identifier that falls back to a constant lets all records without it overwrite each other in one entity:"
        " such a record is now refused"
    )


def _nulls(kind: str, field: str, source: str) -> tuple[str, str]:
    if field != "identifier" or "+" not in _STRINGS.sub("", source):
        return source, ""

    def checked(found: re.Match[str]) -> str:
        if not kind.startswith("/") and found["path"] in _ALWAYS:
            return found[0]
        return f'{found["before"]}{found["space"]}({found["path"]} // error("{found["path"]} is missing"))'

    head, bar, tail = source.rpartition("with_dates | ")
    changed = head + bar + _OPERAND.sub(checked, tail)
    return changed, "" if changed == source else (
        "null joined to a text is that text, so a record without the field would get a part of an identifier:"
        " such a record is now refused"
    )


def _keys(kind: str, field: str, source: str) -> tuple[str, str]:
    if kind != "/usage" or field != "identifier" or "api_key" in source or "row_parts" in source:
        return source, ""
    return f"({source}) + row_parts", (
        "/usage has a row for each API key, project and operation: without them in the identifier, rows of two keys"
        " would overwrite each other"
    )


_RULES: tuple[Callable[[str, str, str], tuple[str, str]], ...] = (_times, _constants, _nulls, _keys)
