"""One resource's mapping, compiled once: a list of records goes in, entities and failures come out, in one JQ run.

A record on which an expression fails does not affect the others: it is returned as a failure, and only then its
expressions are run one by one to find the failing one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from typing import Any

import orjson

from tallystream.agents.port_sink.mapping.model import EntityMapping, ResourceMapping
from tallystream.agents.port_sink.mapping.prelude import PRELUDE
from tallystream.schemas.errors import UsageError
from tallystream.streams.process.jq_programs import Jq, TooLongError

RawEntity = dict[str, Any]
SECONDS, SECONDS_A_ROW = 0.5, 0.02
"""CPU time that a run may take. A record usually takes 0.1 ms."""
MAX_ENDLESS = 3
"""Records whose run did not end, after which a mapping is not tried on any other until the next start."""
_PATH = re.compile(r"(\.[A-Za-z_]\w*)+", re.ASCII)


@dataclass(frozen=True)
class Failure:
    """A record on which a mapping failed."""

    field: str
    """`identifier`, `properties.date`, `selector.query`..."""
    expression: str
    reason: str


@dataclass(frozen=True)
class MappingOutcome:
    """The result for one record: entities of all its mappings (empty when it is not selected), or a failure."""

    entities: Sequence[RawEntity] = ()
    failure: Failure | None = None


class Program:
    """A compiled mapping; `run` is the hot path.

    Raises:
        UsageError: an expression is not valid JQ; the message contains it and JQ's error.

    """

    def __init__(self, resource: ResourceMapping) -> None:
        given = resource.port.entity.mappings
        self._mappings = given if isinstance(given, list) else [given]
        self.items = resource.port.items_to_parse
        """`itemsToParse`."""
        item = resource.port.items_to_parse_name
        self._each = "" if self.items is None else f"(({self.items}\n) // [])[] as $item | (. + {{{item}: $item}}) |"
        """JQ that goes through the items; nothing without `itemsToParse`."""
        self._query = resource.selector.query
        self.kind = resource.kind
        self._endless = 0
        self._single: dict[str, Jq] = {}
        """Expressions by themselves, compiled when one fails for the first time."""
        for field, source in self.expressions():
            _compile(source, f"{resource.kind}: {field}", source)
        bodies = ", ".join(_object(mapping) for mapping in self._mappings)
        if self.items is not None:
            bodies = f"{self._each} ({bodies})"
        body = f"if ({self._query}\n) == true then [{bodies}] else [] end"
        program = f"{PRELUDE} [.[] | .m as $record | .r | try ({body}) catch {{failed: .}}]"
        self._program = _compile(program, resource.kind, "the mapping as a whole", prelude=False)

    def expressions(self) -> Iterator[tuple[str, str]]:
        """Yield (field, JQ) of everything that is an expression, in the order in which they are tried."""
        yield "selector.query", self._query
        if self.items is not None:
            yield "itemsToParse", self.items
        for number, mapping in enumerate(self._mappings):
            head = f"mappings[{number}]." if len(self._mappings) > 1 else ""
            for field, source in leaves(mapping):
                yield head + field, source

    def source(self, field: str) -> str:
        """Return the expression of a field."""
        return dict(self.expressions()).get(field, "")

    def run(self, rows: Sequence[tuple[Any, Mapping[str, Any]]]) -> list[MappingOutcome]:
        """Map records; each comes with its `$record`."""
        if not rows:
            return []
        if self._endless >= MAX_ENDLESS:
            return [MappingOutcome(failure=Failure("", "", "expressions did not end on records before it"))] * len(rows)
        text = orjson.dumps([{"r": row, "m": meta} for row, meta in rows], default=_number).decode()
        try:
            found = self._program.first(text, SECONDS + len(rows) * SECONDS_A_ROW)
        except ValueError as exc:  # it does not end; nothing else that an expression does should get here
            if len(rows) == 1:
                self._endless += isinstance(exc, TooLongError)
                return [self._explain(*rows[0], first_line(exc))]
            return [outcome for row in rows for outcome in self.run([row])]
        return [
            MappingOutcome(one) if isinstance(one, list) else self._explain(row, meta, one["failed"])
            for one, (row, meta) in zip(found, rows, strict=True)
        ]

    def _explain(self, row: object, meta: Mapping[str, object], said: object) -> MappingOutcome:
        """Find the expression that failed, by running them one by one."""
        text = orjson.dumps([{"r": row, "m": meta}], default=_number).decode()
        for field, source in self.expressions():
            if field not in self._single:
                before = "" if field in ("selector.query", "itemsToParse") else self._each
                program = f"{PRELUDE} .[0] | .m as $record | .r | [{before} ([{source}\n][0])]"
                self._single[field] = Jq(program)
            try:
                self._single[field].first(text, SECONDS)
            except ValueError as exc:
                return MappingOutcome(failure=Failure(field, source, first_line(exc)))
        return MappingOutcome(failure=Failure("", "", said if isinstance(said, str) else str(said)))


def leaves(mapping: EntityMapping) -> Iterator[tuple[str, str]]:
    """Yield (field, JQ) of a mapping."""
    for field in ("identifier", "blueprint", "title", "icon"):
        value = getattr(mapping, field)
        if value is not None:
            yield field, value
    for field in ("team", "properties", "relations"):
        yield from _leaves(field, getattr(mapping, field))


def _leaves(field: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(f"{field}.{name}", item)
    elif isinstance(value, list):
        for number, item in zip(count(), value, strict=False):
            yield from _leaves(f"{field}[{number}]", item)


def _object(mapping: EntityMapping) -> str:
    fields = mapping.model_dump(exclude_none=True)
    return "{" + ", ".join(f"{_quote(name)}: {_value(value)}" for name, value in fields.items()) + "}"


def _value(value: object) -> str:
    """Return JQ for a value of the mapping. Texts are JQ: the first result counts, null when there is none."""
    if isinstance(value, str):
        # A plain path always has exactly one result, so it need not be collected.
        return value if _PATH.fullmatch(value) else f"([{value}\n][0])"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quote(name)}: {_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return orjson.dumps(value).decode()


def _quote(name: str) -> str:
    return orjson.dumps(name).decode()


def _compile(program: str, what: str, source: str, *, prelude: bool = True) -> Jq:
    try:
        return Jq(f"{PRELUDE} {program}" if prelude else program)
    except ValueError as exc:
        raise UsageError(
            f"{what}: {source!r} is not a JQ expression: {first_line(exc)}",
            "try it with `tallystream port mapping test FILE --input SAMPLE`; a literal text is '\"text\"'",
        ) from None


def first_line(exc: BaseException) -> str:
    """Return the message of a JQ error without the program that it repeats."""
    text = str(exc).partition("\n")[0].partition(" at <top-level>")[0].removeprefix("jq: error: ")
    return text[:300] or type(exc).__name__


def _number(value: object) -> Any:
    """Write a Decimal as a JSON number: the literal itself, which JQ keeps until it calculates with it."""
    if isinstance(value, Decimal):
        return orjson.Fragment(f"{value:f}")
    raise TypeError(f"{type(value).__name__} is not JSON")
