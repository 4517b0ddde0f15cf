"""Drafts of mappings: identifiers that distinguish rows, and property types that Port has."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tallystream.agents.port_sink.mapping import Mapper
from tallystream.agents.port_sink.mapping.entities import rules
from tallystream.explore.draft import Draft, draft
from tallystream.explore.shapes import Shape


def drafted(rows: list[dict[str, Any]], **options: Any) -> Draft:
    shape = Shape()
    for row in rows:
        shape.observe(row)
    return draft("/things", rows, shape, selector={"query": "true"}, **options)


def entities(found: Draft, rows: list[dict[str, Any]], meta: dict[str, str] | None = None) -> list[Any]:
    mapper = Mapper(yaml.safe_dump(found.mapping, sort_keys=False))
    mapped = mapper.run("/things", [(row, meta or {}) for row in rows], rules({"openai_things": found.blueprint}))
    assert mapped.failures == []
    return [entity for _, entity in mapped.entities]


def test_id_field_becomes_the_identifier() -> None:
    rows: list[dict[str, Any]] = [{"id": "a b", "name": "A", "n": 1}, {"id": "c", "name": "C", "n": None}]
    found = drafted(rows)
    assert found.identity == (".id",)
    assert [entity.body["title"] for entity in entities(found, rows)] == ["A", "C"]
    assert len({entity.key for entity in entities(found, rows)}) == 2


def test_identifier_of_rows_without_id_uses_all_naming_fields() -> None:
    """In this sample the time alone would be unique, but later two models may share it."""
    rows: list[dict[str, Any]] = [
        {"timestamp": 1_700_000_000, "model": "x", "n": 1},
        {"timestamp": 1_700_000_300, "model": "x", "n": 1},
    ]
    found = drafted(rows)
    assert found.identity == (".timestamp", ".model")
    later = [{"timestamp": 1_700_000_600, "model": model, "n": 1} for model in ("x", "y")]
    assert len({entity.key for entity in entities(found, later)}) == 2


def test_identifier_of_bucketed_rows_includes_the_bucket() -> None:
    rows: list[dict[str, Any]] = [{"model": "x", "n": 1}, {"model": "x", "n": 2}]
    found = drafted(rows, buckets=["2026-11-20", "2026-11-21"])
    assert found.identity == ("$record.bucket", ".model")
    record = {"bucket": "2026-11-20", "starts_at": "2026-11-20T00:00:00Z"}
    (entity,) = entities(found, rows[:1], record)
    assert entity.key.identifier == "2026-11-20-x"
    assert entity.body["properties"]["bucket"] == "2026-11-20T00:00:00Z"


def test_identifier_of_unnamed_rows_uses_all_fields() -> None:
    rows: list[dict[str, Any]] = [{"n": 1}, {"n": 2}]
    found = drafted(rows)
    assert found.identity == ()
    assert len({entity.key for entity in entities(found, rows)}) == 2


@pytest.mark.parametrize(
    ("value", "rule", "shown"),
    [
        ("2026-11-21", {"type": "string", "format": "date-time"}, "2026-11-21T00:00:00Z"),
        ("2026-11-21T14:00:00Z", {"type": "string", "format": "date-time"}, "2026-11-21T14:00:00Z"),
        (1_700_000_000, {"type": "string", "format": "date-time"}, "2023-11-14T22:13:20Z"),
        ("https://x.example/", {"type": "string", "format": "url"}, "https://x.example/"),
        (True, {"type": "boolean"}, True),
        (5, {"type": "number"}, 5),
        ([1], {"type": "array"}, [1]),
    ],
)
def test_properties_have_types_that_port_supports(value: Any, rule: dict[str, Any], shown: Any) -> None:
    rows: list[dict[str, Any]] = [{"id": "a", "start_at": value}, {"id": "b", "start_at": None}]
    found = drafted(rows)
    assert found.blueprint["schema"]["properties"]["start_at"] == {"title": "Start At"} | rule
    first, second = entities(found, rows)
    assert first.body["properties"]["start_at"] == shown
    assert second.body["properties"].get("start_at") is None


def test_nested_fields_are_flattened_and_unnameable_ones_left_out() -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "amount": {"value": 1, "currency": "usd"}, "ünïcode": 1, "mixed": 1},
        {"id": "b", "mixed": "x"},
    ]
    found = drafted(rows)
    assert set(found.blueprint["schema"]["properties"]) == {"id", "amount_value", "amount_currency"}
    assert entities(found, rows)[0].body["properties"]["amount_value"] == 1
