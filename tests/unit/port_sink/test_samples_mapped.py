"""`port mapping test` maps the records that the poller finds in a sample, so that it and the sink agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tallystream.cli.commands.port_test import MappingTest, run
from tallystream.streams.poller.resources import Resource, load

BUCKETS = {"data": [{"start_time": day * 86_400, "end_time": (day + 1) * 86_400, "results": [{"id": f"r{day}{n}"}
           for n in range(2)]} for day in range(2)]}  # fmt: skip
OWN = Resource.model_validate({"path": "/own", "rows": ".results", "bucket": "1d"})


def tried(tmp_path: Path, kind: str, sample: Any, declared: tuple[Resource, ...], **given: Any) -> MappingTest:
    selector, items = given.get("selector", {}), given.get("items")
    port = {"entity": {"mappings": {"identifier": given.get("identifier", ".id"), "blueprint": '"own"'}}}
    mapping = {"kind": kind, "selector": selector, "port": port | ({"itemsToParse": items} if items else {})}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump({"resources": [mapping]}))
    (tmp_path / "sample.json").write_text(json.dumps(sample))
    return run(tmp_path / "mapping.yaml", tmp_path / "sample.json", None, declared)


def identifiers(found: MappingTest) -> list[str]:
    return [entity.key.identifier for _, entity in found.entities]


@pytest.mark.parametrize("sample", [BUCKETS, BUCKETS["data"]], ids=["an answer", "a list of buckets"])
def test_bucket_rows_are_the_records(tmp_path: Path, sample: Any) -> None:
    assert identifiers(tried(tmp_path, "/own", sample, (OWN,))) == ["r00", "r01", "r10", "r11"]


def test_whole_buckets_are_the_records_with_items_to_parse(tmp_path: Path) -> None:
    costs = json.loads(json.dumps(BUCKETS))
    for one in costs["data"]:
        for row in one["results"]:
            row["amount"] = {"value": "1.5", "currency": "usd"}
    found = tried(tmp_path, "/organization/costs", costs, load().resources, items=".results",
                  selector={"data_path": ".data"}, identifier=".item.id")  # fmt: skip
    assert identifiers(found) == ["r00", "r01", "r10", "r11"]


def test_sample_gives_no_entities_where_the_sink_gives_none(tmp_path: Path) -> None:
    found = tried(tmp_path, "/own", BUCKETS, (OWN,), items=".results", identifier=".item.id")
    assert not found.entities
    assert not found.failures
    assert any("no entity from any of the 4 records" in note for note in found.notes)


def test_selector_settings_without_effect_are_reported(tmp_path: Path) -> None:
    found = tried(tmp_path, "/models", {"data": [{"id": "m"}]}, load().resources, selector={"query_params": {"a": "1"}})
    assert identifiers(found) == ["m"]
    assert any("query_params of the mapping are not used" in note for note in found.notes)
    found = tried(tmp_path, "/x", [{"id": "m"}], (), selector={"method": "PUT"})
    assert any("selector.method is PUT" in note for note in found.notes)


def test_object_at_the_data_path_is_one_record(tmp_path: Path) -> None:
    found = tried(tmp_path, "/x", {"team": {"id": "t"}}, (), selector={"data_path": ".team"})
    assert identifiers(found) == ["t"]
