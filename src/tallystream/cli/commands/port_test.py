"""Applies a mapping to a sample and shows the result: `tallystream port mapping test`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tallystream.agents.port_sink import blueprints
from tallystream.agents.port_sink.documents.amounts import usable
from tallystream.agents.port_sink.mapping import Failure, Mapper, MappingRepair, default_text
from tallystream.agents.port_sink.mapping.entities import Entity, rules
from tallystream.agents.port_sink.mapping.mapper import collisions
from tallystream.agents.port_sink.mapping.model import ResourceMapping
from tallystream.agents.port_sink.mapping.polled import query_params, resource_of
from tallystream.cli.output.consoles import console
from tallystream.schemas import exact
from tallystream.schemas.errors import InvalidBodyError, TallystreamError, UsageError
from tallystream.schemas.openai import at as openai_at
from tallystream.schemas.openai import bucket_name
from tallystream.streams.poller.errors import PollError
from tallystream.streams.poller.params import Moment, Params
from tallystream.streams.poller.resources import Resource

DAY = 86_400


@dataclass(frozen=True)
class MappingTest:
    """The result. `records` counts the records of the sample; each failure comes with the index of its record."""

    kind: str
    records: int
    entities: Sequence[tuple[int, Entity]]
    failures: Sequence[tuple[int, Failure]]
    repairs: Sequence[MappingRepair]
    params: Mapping[str, Any]
    notes: Sequence[str]

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "kind": self.kind,
            "records": self.records,
            "entities": [
                {"record": index, "blueprint": entity.key.blueprint, **entity.body} for index, entity in self.entities
            ],
            "failures": [
                {"record": index, "field": one.field, "expression": one.expression, "reason": one.reason}
                for index, one in self.failures
            ],
            "repairs": [repair._asdict() for repair in self.repairs],
            "query_params": dict(self.params),
            "notes": list(self.notes),
        }


def run(file: Path, sample: Path, kind: str | None, declared: Sequence[Resource] = ()) -> MappingTest:
    """Map a sample; `declared` are the resources that are polled anyway.

    Raises:
        UsageError: the mapping or the sample cannot be read, or no kind is given and the mapping has several.

    """
    text = default_text() if str(file) == "-" else _read(file, "the mapping")
    mapper = Mapper(text)
    answer = _sample(sample)
    resource = _resource(mapper, kind)
    polled, notes = _polled(mapper, resource, declared)
    rows, more = _records(answer, polled)
    notes += [*mapper.notes, *more]
    meta = {"resource": resource.kind, "query": "0" * 16, "bucket": "current"}
    metas = [meta | _times(row) for row in rows]
    if polled is not None and not mapper.reads_buckets(resource.kind):
        split = polled.extractor.rows
        found_rows = [(one, about) for row, about in zip(rows, metas, strict=True) for one in split(row)]
        rows, metas = [row for row, _ in found_rows], [about for _, about in found_rows]
    places = list(range(len(rows)))
    rows, unusable = usable(resource.kind, rows)
    if unusable:
        left_out = {one.place for one in unusable}
        places = [place for place in places if place not in left_out]
        metas = [metas[place] for place in places]
    known = blueprints.load(session_hours=True)
    for name in sorted(mapper.blueprints() - known.keys()):
        known[name] = {"identifier": name, "schema": {"properties": {}}}
        notes.append(f"{name} is not one of our blueprints: required properties and dates are not checked here")
    mapped = mapper.run(resource.kind, list(zip(rows, metas, strict=True)), rules(known))
    entities = [(places[index], entity) for index, entity in mapped.entities]
    failures = [(places[index], failure) for index, failure in mapped.failures]
    refused = [(one.place, Failure(one.field, "", one.reason)) for one in unusable]
    found = collisions(entities, [*failures, *refused])
    params, wrong = _params(resource)
    repairs = [one for one in mapper.repairs if ": " not in one.where or one.where.startswith(f"{resource.kind}: ")]
    if rows and not found.entities and not found.failures:
        notes.append(
            f"the mapping made no entity from any of the {len(rows)} records: check its query and itemsToParse"
        )
    return MappingTest(
        resource.kind, len(rows) + len(unusable), found.entities, found.failures, repairs, params, [*notes, *wrong]
    )


def show(outcome: MappingTest) -> None:
    """Print it for people."""
    from rich.syntax import Syntax
    from rich.text import Text

    for repair in outcome.repairs:
        console.print(Text.assemble(("repaired ", "yellow"), (repair.where, "bold"), f": {repair.why}"))
        if repair.now:
            console.print(Text(f"  was  {repair.was or '(nothing)'}\n  now  {repair.now}", style="dim"), soft_wrap=True)
    for note in outcome.notes:
        console.print(Text.assemble(("note ", "yellow"), note))
    for name, value in outcome.params.items():
        console.print(Text.assemble(("asks with ", "dim"), f"{name} = {value}"))
    for _, entity in outcome.entities:
        console.print(Text(f"\n{entity.key.blueprint}  {entity.key.identifier}", style="bold"))
        console.print(
            Syntax(json.dumps(dict(entity.body), indent=2, ensure_ascii=False), "json", background_color="default")
        )
    for index, failure in outcome.failures:
        where = f" in {failure.field}" if failure.field else ""
        console.print(Text.assemble(("\nfailed ", "bold red"), f"record {index}{where}: {failure.reason}"))
        if failure.expression:
            console.print(Text(f"  {failure.expression}", style="dim"), soft_wrap=True)
    console.print(
        f"\n{outcome.records} records of {outcome.kind}: {len(outcome.entities)} entities,"
        f" {len(outcome.failures)} failures, {len(outcome.repairs)} repairs"
    )


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise UsageError(f"{what} {path} cannot be read: {why}", "name a readable file, or `-` for stdin") from exc


def _sample(path: Path) -> Any:
    text = sys.stdin.read() if str(path) == "-" else _read(path, "the sample")
    try:
        return exact.loads(text)
    except InvalidBodyError as exc:
        raise UsageError(f"the sample is {exc.message}", "it must be JSON") from None


def _resource(mapper: Mapper, kind: str | None) -> ResourceMapping:
    found = [one for one in mapper.resources if kind in (None, one.kind)]
    if not found:
        raise UsageError(f"the mapping has no kind {kind!r}", f"it has {', '.join(mapper.kinds)}")
    if kind is None and len(mapper.kinds) > 1:
        raise UsageError(
            "the mapping has several kinds, and none was named",
            f"name the kind of the sample: --kind {'|'.join(mapper.kinds)}",
        )
    return found[0]


def _polled(
    mapper: Mapper, mapping: ResourceMapping, declared: Sequence[Resource]
) -> tuple[Resource | None, list[str]]:
    """Return the resource that the poller has for the kind, with what is to be said about it."""
    kind, selector = mapping.kind, mapping.selector
    for one in declared:
        if one.name == kind:
            asked = {"query_params", "method", "headers", "path_parameters", "pagination", "endpoint", "body"}
            own = sorted(asked & selector.model_fields_set)
            if not own:
                return one, []
            return one, [f"{kind} is polled as it is declared; {', '.join(own)} of the mapping are not used"]
    if kind not in mapper.endpoints:
        return None, []
    try:
        return resource_of(mapping), []
    except UsageError as exc:
        return None, [f"{exc.message}; {exc.hint}"]


def _records(answer: object, polled: Resource | None) -> tuple[list[Any], list[str]]:
    """Return the records of a sample: those that the poller would find in it, or the sample itself."""
    if isinstance(answer, list):
        return answer, []
    if polled is None or not isinstance(answer, dict):
        return [answer], []
    try:
        found = polled.extractor.items(answer)
    except PollError as exc:
        raise UsageError(exc.message, "is the data_path right, and is this an answer of the endpoint?") from None
    if found is None:
        return [answer], [f"found no list at {polled.data}: treating the sample as one record"]
    return found, []


def _times(bucket: object) -> dict[str, Any]:
    """Return the times of a bucket that expressions see in `$record`, as the sink has them."""
    if not isinstance(bucket, dict):
        return {}
    start, end = bucket.get("start_time"), bucket.get("end_time")
    if type(start) is not int or type(end) is not int:
        return {}
    times = {"starts_at": start, "ends_at": end, "polled_at": int(time.time())}
    return {
        "bucket": bucket_name(start, end - start),
        **{name: f"{openai_at(seconds):%Y-%m-%dT%H:%M:%SZ}" for name, seconds in times.items()},
    }


def _params(resource: ResourceMapping) -> tuple[dict[str, Any], list[str]]:
    """Return the query parameters that a poll would have now."""
    now = time.time()
    start = int(now) // DAY * DAY
    try:
        return Params(query_params(resource.selector.query_params)).evaluate(Moment(now, start, start + DAY)), []
    except TallystreamError as exc:
        return {}, [exc.message]
