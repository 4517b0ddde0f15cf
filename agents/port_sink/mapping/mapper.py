"""A whole mapping file, which maps each kind of record to entities."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from tallystream.agents.port_sink.mapping import repairs as rules
from tallystream.agents.port_sink.mapping.entities import Entity, EntityKey, Rules, UnmappableError, build
from tallystream.agents.port_sink.mapping.merge import LITERAL, MappingSource, literal_blueprints, merged
from tallystream.agents.port_sink.mapping.model import EntityMapping, ResourceMapping
from tallystream.agents.port_sink.mapping.program import Failure, Program, leaves
from tallystream.agents.port_sink.mapping.repairs import DATA_PATHS, MappingRepair
from tallystream.schemas.errors import UsageError
from tallystream.schemas.openai import BUCKETED

Rows = Sequence[tuple[Any, Mapping[str, Any]]]
SESSION_HOUR = "session-hour"


@dataclass(frozen=True)
class Mapped:
    """The result for a list of records: entities and failures, each with the index of its record."""

    entities: list[tuple[int, Entity]]
    failures: list[tuple[int, Failure]]


class Mapper:
    """Mapping files put together and compiled. `repairs` lists the corrections made to them, `notes` what of them works
    differently here.

    Raises:
        UsageError: a text is not a mapping; the message says where and why.

    """

    def __init__(self, *sources: MappingSource | str) -> None:
        texts = [MappingSource(one) if isinstance(one, str) else one for one in sources]
        whole = merged(texts)
        file = self._file = whole.file
        self.repairs, self.notes = whole.repairs, whole.notes
        self.create_missing = file.create_missing_related_entities
        self.merge = file.enable_merge_entity
        self.delete_dependents = file.delete_dependent_entities
        self.resources = [self._repaired(one) for one in file.resources]
        self._programs = [Program(resource) for resource in self.resources]

    def document(self) -> dict[str, Any]:
        """Return the mapping as it is used, in the shape of a file: all files in one, with their repairs."""
        options = self._file.model_dump(by_alias=True, exclude_unset=True, exclude={"resources"})
        return {
            **options,
            "resources": [_plain(one.model_dump(by_alias=True, exclude_none=True)) for one in self.resources],
        }

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the mapped kinds of records, in the order of the file."""
        return tuple(dict.fromkeys(program.kind for program in self._programs))

    @property
    def endpoints(self) -> dict[str, ResourceMapping]:
        """Return the kinds that are endpoints, each with its first mapping."""
        found: dict[str, ResourceMapping] = {}
        for one in self.resources:
            if one.kind.startswith("/") or one.selector.endpoint is not None:
                found.setdefault(one.kind, one)
        return found

    def reads_buckets(self, kind: str) -> bool:
        """Tell whether the records of a kind are whole buckets, because `itemsToParse` goes through their `results`.

        Raises:
            UsageError: some mappings of the kind do, and others take the rows as records.

        """
        if not kind.startswith(BUCKETED):
            return False
        through = {".results" in (program.items or "") for program in self._programs if program.kind == kind}
        if len(through) > 1:
            raise UsageError(
                f"the mappings of {kind} disagree on what a record is: a bucket with `results`, or one of its rows",
                "give all of them `itemsToParse: .results`, or none of them",
            )
        return through == {True}

    def expressions(self, kind: str) -> Iterator[tuple[str, str]]:
        """Yield the (field, JQ) of a kind."""
        for program in self._programs:
            if program.kind == kind:
                yield from program.expressions()

    def blueprints(self, kind: str | None = None) -> set[str]:
        """Return the blueprints that a kind, or any kind, names literally, as in `blueprint: '"name"'`."""
        named = set()
        for program in self._programs:
            if kind not in (None, program.kind):
                continue
            for field, source in program.expressions():
                if field.endswith("blueprint") and (found := LITERAL.fullmatch(source.strip())):
                    named.add(found[1])
        return named

    def run(self, kind: str, rows: Rows, known: Mapping[str, Rules], absent: Container[str] = ()) -> Mapped:
        """Map records of a kind; `known` has the rules of Port's blueprints, by identifier. What goes to the blueprints
        `absent` is left out: mappings that name no other are not even tried.
        """
        found = Mapped([], [])
        for program, resource in zip(self._programs, self.resources, strict=True):
            if program.kind == kind:
                named = set(literal_blueprints(resource))
                if not named or not all(name in absent for name in named):
                    self._run(program, rows, known, absent, found)
        return found

    def _run(
        self, program: Program, rows: Rows, known: Mapping[str, Rules], absent: Container[str], found: Mapped
    ) -> None:
        for index, outcome in enumerate(program.run(rows)):
            if outcome.failure is not None:
                found.failures.append((index, outcome.failure))
            for raw in outcome.entities:
                if raw.get("blueprint") in absent:
                    continue
                try:
                    found.entities.append((index, build(raw, rows[index][0], known)))
                except UnmappableError as exc:
                    found.failures.append((index, exc.failure(program.source(exc.field))))

    def _repaired(self, resource: ResourceMapping) -> ResourceMapping:
        kind, selector = resource.kind, resource.selector
        head = f"{kind}: "

        def one(field: str, source: str) -> str:
            changed, done = rules.expression(kind, field, source)
            self.repairs.extend(repair._replace(where=head + repair.where) for repair in done)
            return changed

        def every(field: str, value: object) -> Any:
            if isinstance(value, str):
                return one(field, value)
            if isinstance(value, dict):
                return {name: every(f"{field}.{name}", item) for name, item in value.items()}
            return [every(field, item) for item in value] if isinstance(value, list) else value

        def mapping(given: EntityMapping) -> EntityMapping:
            return EntityMapping(**{name: every(name, value) for name, value in given.model_dump().items()})

        if selector.data_path is None and kind in DATA_PATHS:
            path = DATA_PATHS[kind]
            self.repairs.append(
                MappingRepair(f"{head}selector.data_path", "", path,
                       f"{kind} answers with a list in {path}: without it the whole answer would be one record")
            )  # fmt: skip
            selector = selector.model_copy(update={"data_path": path})
        given = resource.port.entity.mappings
        if kind == "/dashboard/billing/usage" and any(
            ".total_usage" in source for one_of in _list(given) for _, source in leaves(one_of)
        ):
            self.repairs.append(
                MappingRepair(f"{head}.total_usage", "", "",
                       "the answer has one total for all days: each day's record gets the sum of its own line items")
            )  # fmt: skip
        mappings = [mapping(one_of) for one_of in given] if isinstance(given, list) else mapping(given)
        entity = resource.port.entity.model_copy(update={"mappings": mappings})
        port = resource.port.model_copy(update={"entity": entity})
        return resource.model_copy(update={"selector": selector, "port": port})


def collisions(entities: Sequence[tuple[int, Entity]], failures: Sequence[tuple[int, Failure]]) -> Mapped:
    """Return the results for records that are valid at the same time, refusing those that contradict each other.

    Two records that map to one entity with different contents are both refused, because it is unknown which one is
    right.
    """
    found = Mapped(list(entities), list(failures))
    first: dict[EntityKey, Entity] = {}
    twice = {entity.key for _, entity in entities if first.setdefault(entity.key, entity).digest != entity.digest}
    if not twice:
        return found
    refused = [
        (index, Failure("identifier", "", f"several records give {entity.key.identifier!r} with different contents"))
        for index, entity in entities
        if entity.key in twice
    ]
    return Mapped([one for one in entities if one[1].key not in twice], [*failures, *refused])


def _plain(value: Any) -> Any:
    """Leave out what is empty."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item not in ({}, [])}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def default_text() -> str:
    """Return the default mapping, as YAML."""
    return files("tallystream.agents.port_sink.mapping").joinpath("default.yaml").read_text()


def _list(value: EntityMapping | list[EntityMapping]) -> list[EntityMapping]:
    return value if isinstance(value, list) else [value]
