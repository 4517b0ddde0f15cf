"""Compares the blueprints in Port with ours; creates missing ones, and changes existing ones only on request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tallystream.agents.port_sink.blueprints import OWNERSHIP, Blueprint, targets
from tallystream.agents.port_sink.blueprints import fitting as blueprints_fitting
from tallystream.agents.port_sink.port import api
from tallystream.agents.port_sink.port.client import PortClient

What = Literal["missing", "added", "changed"]


@dataclass(frozen=True)
class BlueprintDifference:
    """One difference from our blueprint: something is missing (`added`: applying adds it) or differs (`changed`)."""

    blueprint: str
    what: What
    path: str
    """`schema.properties.date.format`; empty when the whole blueprint is missing."""
    theirs: Any = None
    ours: Any = None


async def fetch(client: PortClient, identifiers: Iterable[str]) -> dict[str, Blueprint]:
    """Return the blueprints that Port has, by identifier.

    Raises:
        PortError: Port does not say.

    """
    found = {}
    for identifier in identifiers:
        if (one := await api.blueprint(client, identifier)) is not None:
            found[identifier] = one
    return found


async def fitting(client: PortClient, ours: Mapping[str, Blueprint]) -> dict[str, Blueprint]:
    """Return blueprints with only those relations to owners that Port has: teams, users, services.

    Raises:
        PortError: Port does not say.

    """
    owners = {target for name, one in ours.items() for target in targets(one) & set(OWNERSHIP.get(name, {}).values())}
    return blueprints_fitting(ours, (await fetch(client, sorted(owners))).keys())


async def create_missing(
    client: PortClient, ours: Mapping[str, Blueprint], theirs: Mapping[str, Blueprint]
) -> list[str]:
    """Create only the blueprints that Port does not have; return them.

    Raises:
        PortError: Port rejects one.

    """
    created = []
    for identifier, definition in ours.items():
        if identifier not in theirs and await api.create_blueprint(client, definition):
            created.append(identifier)
    return created


def differences(ours: Mapping[str, Blueprint], theirs: Mapping[str, Blueprint]) -> list[BlueprintDifference]:
    """Return the changes that applying ours would make. Additional parts of their blueprints are kept."""
    found: list[BlueprintDifference] = []
    for identifier, definition in ours.items():
        have = theirs.get(identifier)
        if have is None:
            found.append(BlueprintDifference(identifier, "missing", "", None, definition))
            continue
        found.extend(compare(identifier, "", definition, have))
    return found


async def apply(
    client: PortClient, ours: Mapping[str, Blueprint], theirs: Mapping[str, Blueprint]
) -> list[BlueprintDifference]:
    """Update Port's blueprints to include ours; return the changes.

    Raises:
        PortError: Port rejects a change; earlier changes have been made.

    """
    found = differences(ours, theirs)
    await create_missing(client, ours, theirs)
    for identifier in dict.fromkeys(one.blueprint for one in found if one.what != "missing"):
        merged = merge(ours[identifier], theirs[identifier])
        # Only parts that differ: Port lets nobody change the other parts of its own blueprints.
        parts = {one.path.split(".")[0] for one in found if one.blueprint == identifier}
        await api.patch_blueprint(client, identifier, {name: merged[name] for name in sorted(parts)})
    return found


def merge(ours: Mapping[str, object], theirs: Mapping[str, object]) -> dict[str, Any]:
    """Return theirs with what ours say put into it; lists (`required`, `enum`) are ours and then what theirs add."""
    merged = dict(theirs)
    for name, value in ours.items():
        have = merged.get(name)
        if isinstance(value, Mapping) and isinstance(have, Mapping):
            merged[name] = merge(value, have)
        elif isinstance(value, list) and isinstance(have, list):
            merged[name] = [*value, *(item for item in have if item not in value)]
        else:
            merged[name] = value
    return merged


def compare(blueprint: str, path: str, ours: object, theirs: object) -> Iterator[BlueprintDifference]:
    """Yield what of ours theirs does not include, below `path`."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name, value in ours.items():
            inner = f"{path}.{name}" if path else name
            if name in theirs:
                yield from compare(blueprint, inner, value, theirs[name])
            elif isinstance(value, Mapping) and value and all(isinstance(item, Mapping) for item in value.values()):
                # Each on its own, such as the properties that are added to a blueprint which has none yet.
                yield from compare(blueprint, inner, value, {})
            elif value or value is False:
                yield BlueprintDifference(blueprint, "added", inner, None, value)
    elif isinstance(ours, list) and isinstance(theirs, list):
        if any(item not in theirs for item in ours):
            yield BlueprintDifference(
                blueprint, "changed", path, theirs, [*ours, *(one for one in theirs if one not in ours)]
            )
    elif ours != theirs:
        yield BlueprintDifference(blueprint, "changed", path, theirs, ours)
