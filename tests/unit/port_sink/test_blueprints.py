"""Our blueprints and Port's schema."""

from __future__ import annotations

import copy
from typing import Any, get_args

import jsonschema_rs

from tallystream.agents.port_sink import blueprints
from tallystream.agents.port_sink.blueprints import sync
from tallystream.agents.port_sink.mapping.entities import rules
from tallystream.agents.port_sink.mapping.mapper import Mapper, default_text
from tallystream.sandbox.contract import Contract
from tallystream.sandbox.port_rules import EntityRules
from tallystream.schemas.clients import NORMALISERS
from tallystream.schemas.clients.genai import spellings
from tallystream.schemas.clients.payer import Billing
from tallystream.schemas.connections import Provider


class TestBlueprints:
    def test_port_accepts_our_blueprints_in_order(self) -> None:
        found = Contract("port").find("POST", "/v1/blueprints")
        assert found is not None
        made = {*blueprints.SYSTEM, "service"}
        for name, blueprint in blueprints.load(session_hours=True).items():
            assert found[0].body_problems(blueprint) == []
            assert blueprints.targets(blueprint) <= made
            made.add(name)
        assert len(made) == 8 + 3
        assert blueprints.SESSION_HOUR not in blueprints.load()

    def test_documented_date_properties_are_refused_by_ports_schema(self) -> None:
        found = Contract("port").find("POST", "/v1/blueprints")
        assert found is not None
        usage = blueprints.load()["openai_daily_usage"]
        usage["schema"]["properties"]["date"]["format"] = "date"
        assert found[0].body_problems(usage)

    def test_applied_blueprints_have_no_difference_and_keep_other_properties(self) -> None:
        ours = blueprints.load()
        theirs: dict[str, Any] = {
            "coding_agent_session": {
                "identifier": "coding_agent_session", "title": "Mine", "createdAt": "then",
                "schema": {
                    "properties": {"cost_usd": {"type": "string", "title": "Cost"}, "own": {"type": "number"}},
                    "required": ["own"],
                },
                "relations": {"service": {"target": "service", "required": False, "many": False}},
            }
        }  # fmt: skip
        found = sync.differences(ours, theirs)
        assert {one.blueprint for one in found if one.what == "missing"} == ours.keys() - theirs.keys()
        changed = {one.path: one.ours for one in found if one.what == "changed"}
        assert changed["schema.properties.cost_usd.type"] == "number"
        assert changed["schema.required"] == ["session_id", "client", "own"]
        assert "relations.models" in {one.path for one in found if one.what == "added"}
        merged = {name: sync.merge(one, theirs.get(name, {})) for name, one in ours.items()}
        assert sync.differences(ours, merged) == []
        session = merged["coding_agent_session"]
        assert session["schema"]["properties"]["own"] == {"type": "number"}
        assert session["relations"]["service"]["target"] == "service"

    def test_every_client_and_kind_of_connection_may_be_written(self) -> None:
        loaded = blueprints.load()
        spans = {*spellings.SERVICES.values(), *(client for _, client in spellings.CLIENTS), "genai"}
        logs = {normaliser.client for normaliser in NORMALISERS}
        properties = loaded["coding_agent_session"]["schema"]["properties"]
        assert set(properties["client"]["enum"]) == logs | spans
        connection = loaded["coding_agent_connection"]["schema"]["properties"]
        assert set(connection["provider"]["enum"]) == set(get_args(Provider))
        assert set(properties["billing"]["enum"]) == set(get_args(Billing))

    def test_properties_of_a_later_release_wait_for_the_blueprint_that_has_them(self) -> None:
        """An entity with a property that the blueprint lacks would be refused by Port, and with it all that it says."""
        ours = blueprints.load(session_hours=True)
        older = copy.deepcopy(ours)
        for name, later in blueprints.LATER.items():
            for one in later:
                del older[name]["schema"]["properties"][one]
                assert one not in older[name]["schema"]["required"]
        record: dict[str, Any] = {
            "connection_id": "c",
            "session_id": "s",
            "client": "codex",
            "models": [],
            "openai_models": [],
        }
        record |= {"attribution": {"agent": "reviewer", "billing": "plan", "user": "u"}}
        mapper = Mapper(default_text())
        for known, more in ((older, {}), (ours, {"agent": "reviewer", "billing": "plan"})):
            found = mapper.run("session", [(record, {})], rules(known))
            ((_, entity),) = found.entities
            properties = entity.body["properties"]
            assert properties["user"] == "u"
            assert {name: properties[name] for name in ("agent", "billing") if name in properties} == more
            assert EntityRules(known["coding_agent_session"]).problem(entity.body) is None

    def test_blueprints_are_valid_json_schemas(self) -> None:
        for blueprint in blueprints.load(session_hours=True).values():
            rules = {name: {"type": rule["type"]} for name, rule in blueprint["schema"]["properties"].items()}
            jsonschema_rs.Draft202012Validator({"properties": rules})
