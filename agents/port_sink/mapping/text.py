"""Parses the text of a mapping file: YAML, with repairs of damage from copying it from a web page.

Three kinds of damage are repaired, and each repair is reported:

    identifier: "daily-" + (.timestamp)     YAML ends the value at the second quote (or a bracket, or stumbles over a
                                            colon): the whole expression is quoted
    lost indentation                        restored from the shape every mapping has
    several `resources:` after one another  YAML would keep the last one only: they become one list
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from tallystream.agents.port_sink.mapping.repairs import MappingRepair
from tallystream.schemas.errors import UsageError

LONGEST = 1 << 20
_VALUE = re.compile(r"^(?P<head>\s*(?:-\s+)?[\w.$@/-]+:[ \t]+)(?P<value>[^\s|>&*!#'].*?)[ \t]*$")
_KEY = re.compile(r"^(?P<dash>-[ \t]+)?(?P<key>[\w.$@/-]+):(?:[ \t]+(?P<value>\S.*))?$")

_DEPTH = {
    "resources": 0, "createMissingRelatedEntities": 0, "deleteDependentEntities": 0, "enableMergeEntity": 0,
    "entityDeletionThreshold": 0, "itemsToParseName": 3, "itemsToParseTopLevelTransform": 3,
    "kind": 1, "selector": 2, "port": 2,
    "query": 3, "query_params": 3, "data_path": 3, "method": 3, "entity": 3, "itemsToParse": 3,
    "mappings": 4, "identifier": 5, "title": 5, "icon": 5, "team": 5, "blueprint": 5, "properties": 5, "relations": 5,
}  # fmt: skip
"""Depth of the known keys, in levels of two spaces; other keys belong to the key before them."""
_HOLDERS = {"query_params": 4, "properties": 6, "relations": 6}
"""Keys whose members have free names, and how deep those stand."""

HINT = "put the whole expression in single quotes: identifier: '\"daily-\" + .day'"


def parse(text: str) -> tuple[Any, list[MappingRepair]]:
    """Return the YAML's contents and the repairs.

    Raises:
        UsageError: it is not valid YAML even after repairs; the message names the line.

    """
    if len(text) > LONGEST:
        raise UsageError(f"a mapping of {len(text):,} characters is too long", "1 MiB is the limit")
    repairs: list[MappingRepair] = []
    lines = _one_list(_indented(text.expandtabs(2).splitlines(), repairs), repairs)
    try:
        return _load(lines), repairs
    except UsageError:
        return _load(_quoted(lines, repairs)), repairs


def _load(lines: list[str]) -> Any:
    try:
        return yaml.safe_load("\n".join(lines))
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f"line {mark.line + 1}" if mark else "somewhere"
        shown = f": {lines[mark.line].strip()}" if mark and mark.line < len(lines) else ""
        raise UsageError(f"the mapping is not YAML at {where}{shown} ({exc.problem})", HINT) from None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise UsageError(f"the mapping is not YAML: {' '.join(str(exc).split())[:200]}", HINT) from None


def _quoted(lines: list[str], repairs: list[MappingRepair]) -> list[str]:
    """Quote values that are not valid YAML by themselves."""
    done = []
    for line in lines:
        found = _VALUE.match(line)
        if found is None or _is_yaml(found["value"]):
            done.append(line)
            continue
        head, value = found["head"], found["value"]
        quoted = "'" + value.replace("'", "''") + "'"
        done.append(head + quoted)
        why = (
            f"YAML takes {value[:1]} for the beginning of something else: the whole expression is now in single quotes"
        )
        repairs.append(MappingRepair(head.strip().rstrip(":").lstrip("- "), value, quoted, why))
    return done


def _is_yaml(value: str) -> bool:
    try:
        yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        return False
    return True


def _indented(lines: list[str], repairs: list[MappingRepair]) -> list[str]:
    """Restore lost indentation."""
    content = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    keys = {found["key"] for line in content if (found := _KEY.match(line))}
    if not {"resources", "selector", "port"} <= keys or any(line[0] == " " for line in content):
        return lines
    done = []
    free: int | None = None
    for line in lines:
        found = _KEY.match(line)
        if found is None:
            done.append(line)
            continue
        key = found["key"]
        depth = _DEPTH.get(key)
        if depth is None:
            depth = free if free is not None else 0
        elif key in _HOLDERS:
            free = _HOLDERS[key]
        elif depth < (free or 0):
            free = None
        done.append("  " * depth + line)
    repairs.append(
        MappingRepair("the file", "", "", "its indentation was lost in copying: restored from the shape of a mapping")
    )
    return done


def _one_list(lines: list[str], repairs: list[MappingRepair]) -> list[str]:
    """Make one list of several `resources:` after one another."""
    heads = [number for number, line in enumerate(lines) if line.rstrip() == "resources:"]
    if len(heads) < 2:
        return lines
    repairs.append(
        MappingRepair(
            "resources",
            "",
            "",
            f"`resources` occurs {len(heads)} times, and YAML keeps one: they are now one list",
        )
    )
    return [line for number, line in enumerate(lines) if number not in heads[1:]]
