"""What `port apply` puts into Port: valid by Port's schema, and added to what is there."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tallystream.agents.port_sink import blueprints
from tallystream.agents.port_sink.blueprints import sync
from tallystream.agents.port_sink.catalogue import SCORED, aggregations, dashboard, pages, scorecard, scorecards
from tallystream.sandbox.contract import Contract
from tallystream.sandbox.port_pages import SandboxPages
from tallystream.sandbox.port_scorecards import SandboxScorecards
from tallystream.sandbox.port_store import ChangeRefusedError

ROOT = Path(__file__).parents[3]
OURS = blueprints.load()
KNOWN = {*OURS, *aggregations()}
BOARD = dashboard()["widgets"][0]


def problems(operation: str, body: object) -> list[str]:
    method, path = operation.split()
    found = Contract("port", "port-unpublished").find(method, path)
    assert found is not None
    return [str(one) for one in found[0].body_problems(body)]


@pytest.mark.parametrize("name", aggregations())
def test_aggregations_fit_ports_schema_and_our_blueprints(name: str) -> None:
    fields = {key: value for key, value in aggregations()[name].items() if key != "identifier"}
    assert fields.keys() == {"aggregationProperties"}, "Port lets nobody change more of its own blueprints"
    assert problems(f"PATCH /v1/blueprints/{name}", fields) == []
    for one in fields["aggregationProperties"].values():
        target = OURS[one["target"]]
        (path,) = one["pathFilter"]
        assert path["fromBlueprint"] == one["target"]
        assert target["relations"][path["path"][0]]["target"] == name
        properties = target["schema"]["properties"]
        assert properties[one["query"]["rules"][0]["property"]]["format"] == "date-time"
        if one["calculationSpec"]["calculationBy"] == "property":
            assert properties[one["calculationSpec"]["property"]]["type"] == "number"


def test_dashboard_follows_ports_rules_and_shows_existing_properties() -> None:
    assert problems("POST /v1/pages", dashboard()) == []
    SandboxPages().create(dashboard(), KNOWN)
    for one in BOARD["widgets"]:
        for shown in (one, *one.get("lines", ())):
            if (have := OURS.get(shown.get("blueprint"))) is None:
                continue
            named = {rule["property"] for rule in shown["dataset"]["rules"]}
            named |= {name.removeprefix("properties.") for name in shown.get("properties", ())}
            named |= {shown[key].removeprefix("property#") for key in ("property", "measureTimeBy") if key in shown}
            assert named <= have["schema"]["properties"].keys(), one["id"]


@pytest.mark.parametrize("known", [KNOWN, {*OURS}, {*OURS, "_team"}, {"coding_agent_session"}])
def test_dashboard_leaves_out_what_the_account_does_not_have(known: set[str]) -> None:
    fit = pages.fitting(dashboard(), known)
    SandboxPages().create(fit, known)
    kept = {one["id"] for one in fit["widgets"][0]["widgets"]}
    assert ("codingAgentTeams" in kept) == ("_team" in known)
    assert "codingAgentSessions" in kept


def test_applied_dashboard_has_no_difference_and_keeps_what_users_did() -> None:
    ours = dashboard()
    (missing,) = pages.differences(ours, None)
    assert missing.what == "missing"
    assert pages.differences(ours, ours) == []

    theirs: dict[str, Any] = copy.deepcopy(ours)
    board = theirs["widgets"][0]
    note = {"id": "mine", "type": "markdown", "title": "Mine", "source": "custom", "markdown": "# Hello"}
    board["widgets"] = [note, *(one for one in board["widgets"] if one["id"] != "codingAgentBills")]
    board["widgets"][1] |= {"title": "Money", "icon": "Star"}
    board["layout"] = [
        {"height": 900, "columns": [{"id": "mine", "size": 12}]},
        *(row for row in reversed(board["layout"]) if row["columns"][0]["id"] != "codingAgentBills"),
    ]
    found = {one.path: one.what for one in pages.differences(ours, theirs)}
    assert found == {"widgets.codingAgentBills": "added", "widgets.codingAgentSpend.title": "changed"}

    merged = {**theirs, **pages.merged(ours, theirs)}
    assert problems("PATCH /v1/pages/coding_agent_costs", pages.merged(ours, theirs)) == []
    SandboxPages().create(merged, KNOWN)
    assert pages.differences(ours, merged) == []
    after = merged["widgets"][0]
    assert note in after["widgets"]
    assert after["widgets"][1]["icon"] == "Star"
    assert after["layout"][: len(board["layout"])] == board["layout"]


def test_aggregations_keep_what_a_team_has() -> None:
    ours = aggregations()["_team"]
    theirs = {"identifier": "_team", "title": "Team", "aggregationProperties": {"own": {"title": "Own"}}}
    merged = sync.merge(ours, theirs)
    assert sync.differences({"_team": ours}, {"_team": merged}) == []
    assert merged["aggregationProperties"].keys() > {"own"}
    assert merged["title"] == "Team"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda board: board["layout"][0]["columns"][0].update(size=3), "sum to 12"),
        (lambda board: board["layout"][0]["columns"][0].update(id="nobody"), "every column"),
        (lambda board: board["widgets"].append(board["widgets"][0]), "every column"),
        (lambda board: board["widgets"][0].update(blueprint="nothing"), "was not found"),
    ],
)
def test_sandbox_refuses_a_broken_dashboard(change: Any, said: str) -> None:
    page = dashboard()
    change(page["widgets"][0])
    with pytest.raises(ChangeRefusedError, match=said):
        SandboxPages().create(page, KNOWN)


def test_deploy_folder_shows_the_same_files() -> None:
    found = {path.stem: json.loads(path.read_text()) for path in (ROOT / "deploy" / "port").glob("*.json")}
    assert found == {name.strip("_"): one for name, one in aggregations().items()} | {
        "dashboard": dashboard(), "scorecard": scorecard(),
    }  # fmt: skip


def test_scorecard_follows_ports_rules_and_keeps_what_users_did() -> None:
    ours = scorecard()
    create = f"POST /v1/blueprints/{SCORED}/scorecards"
    assert problems(create, ours) == []
    SandboxScorecards().create(OURS[SCORED], ours)  # its levels, and its properties
    assert [one.what for one in scorecards.differences(ours, None)] == ["missing"]
    assert scorecards.differences(ours, ours) == []

    theirs = copy.deepcopy(ours)
    own = {**theirs["rules"][0], "identifier": "own", "level": "Platinum"}
    theirs["levels"].append({"color": "purple", "title": "Platinum"})
    theirs["rules"] = [own, {**theirs["rules"][1], "title": "Most tokens"}, theirs["rules"][2]]
    theirs |= {"id": "scorecard_1", "blueprint": SCORED, "createdBy": "somebody"}
    found = {one.path: one.what for one in scorecards.differences(ours, theirs)}
    assert found == {"rules.billed": "added", "rules.seen.title": "changed"}
    merged = scorecards.merged(ours, theirs)
    assert problems(f"PUT /v1/blueprints/{SCORED}/scorecards/{ours['identifier']}", merged) == []
    SandboxScorecards().create(OURS[SCORED], merged)
    assert scorecards.differences(ours, merged) == []
    assert own in merged["rules"]
    assert merged["levels"] == theirs["levels"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rule: rule.update(level="Basic"), "none of the levels"),
        (lambda rule: rule["query"]["conditions"][0].update(property="nothing"), "no property 'nothing'"),
    ],
)
def test_sandbox_refuses_a_broken_scorecard(change: Any, said: str) -> None:
    broken = scorecard()
    change(broken["rules"][0])
    with pytest.raises(ChangeRefusedError, match=said):
        SandboxScorecards().create(OURS[SCORED], broken)
