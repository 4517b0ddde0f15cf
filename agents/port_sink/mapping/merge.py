"""Merges mapping files: a later file's mapping of a kind to a blueprint replaces an earlier one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tallystream.agents.port_sink.mapping.model import MappingFile, ResourceMapping
from tallystream.agents.port_sink.mapping.program import leaves
from tallystream.agents.port_sink.mapping.repairs import MappingRepair
from tallystream.agents.port_sink.mapping.text import parse
from tallystream.schemas.errors import UsageError

LITERAL = re.compile(r'"([^"\\]+)"')
"""A blueprint that is named literally: `'"name"'`."""


@dataclass(frozen=True)
class MappingSource:
    """The text of a mapping file; `name` is for messages, the kinds of `without` are left out."""

    text: str
    name: str = "the mapping"
    without: Collection[str] = ()
    own: bool = True
    """Whether a user wrote it."""


@dataclass(frozen=True)
class MergedMapping:
    """One mapping out of several files."""

    file: MappingFile
    repairs: list[MappingRepair]
    notes: list[str]
    """Notes on where the mapping behaves differently from Port's own integrations."""


def merged(sources: Sequence[MappingSource]) -> MergedMapping:
    """Return one mapping out of all files.

    Of one kind and blueprint, the last file that maps them counts. An option (`deleteDependentEntities`, ...) is what
    the files that state it agree on.

    Raises:
        UsageError: a file is not a mapping, or two files disagree on an option.

    """
    resources: list[ResourceMapping] = []
    options: dict[str, tuple[Any, str]] = {}
    repairs: list[MappingRepair] = []
    notes: list[str] = []
    for source in sources:
        file, done = _read(source)
        repairs += done
        if source.own:
            notes += _notes(source.name, file)
        own = [one for one in file.resources if one.kind not in source.without]
        taken = {(one.kind, name) for one in own for name in literal_blueprints(one)}
        resources = [one for one in resources if not _among(one, taken)] + own
        for option, value in file.model_dump(by_alias=True, exclude_unset=True, exclude={"resources"}).items():
            have = options.setdefault(option, (value, source.name))
            if have[0] != value:
                raise UsageError(
                    f"{have[1]} says {option}: {have[0]}, and {source.name} says {value}",
                    "it holds for all mappings together, so give it one value",
                )
    values = {option: value for option, (value, _) in options.items()}
    return MergedMapping(MappingFile.model_validate({"resources": resources, **values}), repairs, notes)


def literal_blueprints(resource: ResourceMapping) -> Iterator[str]:
    """Yield the blueprints that a mapping names literally."""
    given = resource.port.entity.mappings
    for mapping in given if isinstance(given, list) else [given]:
        for field, expression in leaves(mapping):
            if field == "blueprint" and (found := LITERAL.fullmatch(expression.strip())):
                yield found[1]


def _notes(name: str, file: MappingFile) -> Iterator[str]:
    if file.entity_deletion_threshold is not None:
        yield (
            f"{name}: entityDeletionThreshold has no effect, because what an answer lacks is not deleted;"
            " TALLYSTREAM_PORT_RETENTION deletes by age"
        )
    relates = any(field.startswith("relations") for one in file.resources for field in _fields(one))
    if relates and "create_missing_related_entities" not in file.model_fields_set:
        yield (
            f"{name}: createMissingRelatedEntities is not given, so an entity waits until its relation's target is in"
            " Port; Ocean's default, true, creates a bare target instead"
        )


def _fields(resource: ResourceMapping) -> Iterator[str]:
    given = resource.port.entity.mappings
    for mapping in given if isinstance(given, list) else [given]:
        for field, _ in leaves(mapping):
            yield field


def _among(resource: ResourceMapping, taken: Collection[tuple[str, str]]) -> bool:
    return any((resource.kind, name) in taken for name in literal_blueprints(resource))


def _read(source: MappingSource) -> tuple[MappingFile, list[MappingRepair]]:
    raw, repairs = parse(source.text)
    if not isinstance(raw, dict):
        raise UsageError(f"{source.name} is empty or not a YAML object", "it begins with `resources:`")
    try:
        return MappingFile.model_validate(raw), repairs
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        where = ".".join(map(str, error["loc"]))
        raise UsageError(
            f"{source.name} does not fit: {where}: {error['msg']}", "docs/port.md shows the shape"
        ) from None
