"""Resources: the built-in ones are complete, a user's file can add to them, and mistakes are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tallystream.sandbox.contract import Contract
from tallystream.schemas.errors import UsageError
from tallystream.streams.poller.params import Moment, pairs
from tallystream.streams.poller.resources import BUILTIN, Resource, builtin, load

DAY = 86_400
MORE = """
disable = ["/dashboard/billing/usage"]

[[resources]]
path = "/organization/costs"
name = "my costs by key"
key = "admin"
rows = ".results"
bucket = "1d"
pages = {}
params = { start_time = "$from", group_by = ["api_key_id"] }

[[resources]]
path = "/models"
data = ".data | map(select(.owned_by != \\"system\\"))"
"""


def test_built_in_resources_match_the_published_endpoints() -> None:
    contract = Contract("openai", "openai-legacy")
    resources = {resource.path: resource for resource in builtin()}
    assert set(resources) == {operation.template for operation in contract.operations} - {"/models/{model}"}
    for path, resource in resources.items():
        found = contract.find("GET", path)
        assert found is not None
        values = resource.compiled.evaluate(Moment(20 * DAY + 5.0, 19 * DAY, 20 * DAY))
        if resource.pages and resource.pages.size:
            values[resource.pages.size_param] = resource.pages.size
        given: dict[str, list[str]] = {}
        for name, value in pairs(values):
            given.setdefault(name, []).append(value)
        asked, problems = found[0].query(given)
        assert problems == []
        assert set(asked) >= set(given)
        kind = {"AdminApiKeyAuth": "admin", "SessionAuth": "session"}
        assert resource.key == kind.get(next(iter(found[0].schemes), ""), "api")


def test_resource_file_can_add_replace_and_disable(tmp_path: Path) -> None:
    path = tmp_path / "more.toml"
    path.write_text(MORE)
    resources = {resource.name: resource for resource in load(path).resources}
    assert "/dashboard/billing/usage" not in resources
    assert resources["my costs by key"].path == "/organization/costs"
    assert "/organization/costs" in resources
    assert "select" in resources["/models"].data
    assert len(resources) == len(builtin(*BUILTIN))


def test_yaml_resource_file_is_equivalent(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text("resources:\n- path: /fine_tuning/jobs\n  params: {limit: 20}\n  lookback: P7D\n")
    (added,) = [resource for resource in load(path).resources if resource.name == "/fine_tuning/jobs"]
    assert added.params == {"limit": 20}
    assert added.window is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resources: [{path: /x, params: {date: 1d}}]", "not a JQ expression"),
        ("resources: [{path: /x, data: '.['}]", "data"),
        ("resources: [{path: x}]", "path"),
        ("resources: [{path: /x, bucket: 2d}]", "bucket"),
        ("resources: [{path: /x, windoww: P1D}]", "windoww"),
        ("resources: [{path: /x, pages: {style: offset}}]", "page size"),
        ("resources: [{path: /x}, {path: /x}]", "twice"),
        ("disable: [/nope]", "/nope"),
        ("resources: [", "not TOML or YAML"),
        ("- 1", "more.yaml"),
    ],
)
def test_invalid_files_are_reported_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said.replace("/", ".")) as caught:
        load(path)
    assert caught.value.hint


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "nope.toml")


def costs(**changes: object) -> Resource:
    raw = {"path": "/organization/costs", "bucket": "1d", "rows": ".results", "pages": {"size": 7},
           "params": {"start_time": "$from", "group_by": ["project_id"]}}  # fmt: skip
    return Resource.model_validate(raw | changes)


def test_fingerprint_ignores_time_and_paging() -> None:
    same = costs(pages={"size": 90}, params={"start_time": "$from + 0", "group_by": ["project_id"]}, lookback="P90D")
    assert costs().fingerprint() == same.fingerprint()


@pytest.mark.parametrize(
    "changes",
    [{"name": "other"}, {"bucket": "1h"}, {"params": {"start_time": "$from", "group_by": ["model"]}},
     {"params": {"start_time": "$from"}}],
)  # fmt: skip
def test_changed_parameters_make_another_query(changes: dict[str, Any]) -> None:
    assert costs(**changes).fingerprint() != costs().fingerprint()


def test_another_organisation_makes_another_query() -> None:
    assert costs().fingerprint(("org-1", None)) != costs().fingerprint(("org-2", None))
    assert costs().fingerprint(("a", None)) != costs().fingerprint((None, "a"))
