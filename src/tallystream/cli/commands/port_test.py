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
from tallystream.agents.port_sink.documents.openai import complete
from tallystream.agents.port_sink.mapping import Failure, Mapper, MappingRepair, default_text
from tallystream.agents.port_sink.mapping.entities import Entity, rules
from tallystream.agents.port_sink.mapping.mapper import collisions
from tallystream.agents.port_sink.mapping.model import ResourceMapping
from tallystream.agents.port_sink.mapping.program import first_line
from tallystream.cli.options import console
from tallystream.schemas import exact
from tallystream.schemas.errors import InvalidBodyError, TallystreamError, UsageError
from tallystream.schemas.openai import BUCKETED, bucket_name
from tallystream.schemas.openai import at as openai_at
from tallystream.streams.poller.params import Moment, Params
from tallystream.streams.process.jq_programs import Jq

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


def run(file: Path, sample: Path, kind: str | None) -> MappingTest:
    """Map a sample.

    Raises:
        UsageError: the mapping or the sample cannot be read, or no kind is given and the mapping has several.

    """
    text = default_text() if str(file) == "-" else _read(file, "the mapping")
    mapper = Mapper(text)
    answer = _sample(sample)
    resource = _resource(mapper, kind)
    rows, notes = _records(answer, resource)
    meta = {"resource": resource.kind, "query": "0" * 16, "bucket": "current"}
    metas = [meta | _times(row) for row in rows]
    if resource.kind.startswith(BUCKETED) and not mapper.reads_buckets(resource.kind):
        found_rows = [(one, about) for row, about in zip(rows, metas, strict=True) for one in _rows(row)]
        rows, metas = [row for row, _ in found_rows], [about for _, about in found_rows]
    rows = complete(resource.kind, rows)
    known = blueprints.load(session_hours=True)
    for name in sorted(mapper.blueprints() - known.keys()):
        known[name] = {"identifier": name, "schema": {"properties": {}}}
        notes.append(f"{name} is not one of our blueprints: required properties and dates are not checked here")
    mapped = mapper.run(resource.kind, list(zip(rows, metas, strict=True)), rules(known))
    found = collisions(mapped.entities, mapped.failures)
    params, wrong = _params(resource)
    repairs = [one for one in mapper.repairs if ": " not in one.where or one.where.startswith(f"{resource.kind}: ")]
    if rows and not found.entities and not found.failures:
        notes.append(
            f"the mapping made no entity from any of the {len(rows)} records: check its query and itemsToParse"
        )
    return MappingTest(resource.kind, len(rows), found.entities, found.failures, repairs, params, [*notes, *wrong])


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


def _records(answer: object, resource: ResourceMapping) -> tuple[list[Any], list[str]]:
    """Return the records of a sample: those at the data path, or the sample itself."""
    path = resource.selector.data_path
    if path is not None and isinstance(answer, dict):
        try:
            found = _at(path, answer)
        except ValueError as exc:
            raise UsageError(f"data_path {path!r} fails on the sample: {first_line(exc)}", "") from None
        if isinstance(found, list):
            return found, []
        return [answer], [f"found no list at {path}: treating the sample as one record"]
    return (answer, []) if isinstance(answer, list) else ([answer], [])


def _rows(bucket: object) -> list[Any]:
    """Return the rows of a bucket, as the sink has them. A record that is not a bucket is itself a row."""
    results = bucket.get("results") if isinstance(bucket, dict) else None
    return results if isinstance(results, list) else [bucket]


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


def _at(path: str, answer: object) -> Any:
    """Return the value at a data path with its numbers unchanged, because JQ finds only the path."""
    places = Jq(f"path({path})").all(exact.dumps(answer))
    if len(places) != 1:
        return None
    value = answer
    for step in places[0]:
        if not isinstance(value, dict | list):
            return None
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _params(resource: ResourceMapping) -> tuple[dict[str, Any], list[str]]:
    """Return the query parameters that a poll would have now."""
    now = time.time()
    start = int(now) // DAY * DAY
    try:
        return Params(resource.selector.query_params).evaluate(Moment(now, start, start + DAY)), []
    except TallystreamError as exc:
        return {}, [exc.message]
