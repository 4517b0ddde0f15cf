"""Relations to teams, users and services: only to those that Port has."""

from __future__ import annotations

from typing import Any

import pytest

from tallystream.agents.port_sink import blueprints
from tallystream.agents.port_sink.mapping.entities import Rules, rules
from tallystream.agents.port_sink.mapping.mapper import Mapper, default_text
from tallystream.agents.port_sink.state.related import owners

OURS = blueprints.load()
EXISTING = {
    "_team": {"payments", "Search"},
    "_user": {"ada@example.com"},
    "service": {"checkout", "acme/billing", "github.com/acme/search"},
}
OWNERS = ("port_team", "port_user", "port_service")


def relations(attribution: dict[str, Any], known: dict[str, Rules]) -> dict[str, Any]:
    record = {"connection_id": "c", "session_id": "s", "client": "codex", "models": [], "openai_models": []}
    found = Mapper(default_text()).run("session", [({**record, "attribution": attribution}, {})], known)
    assert not found.failures
    ((_, entity),) = found.entities
    related: dict[str, Any] = entity.body["relations"]
    return {name: related[name] for name in OWNERS if name in related}


@pytest.mark.parametrize(
    ("attribution", "expected"),
    [
        ({"team": "payments"}, {"port_team": "payments"}),
        ({"team": "Payments"}, {"port_team": "payments"}),
        ({"team": "Search"}, {"port_team": "Search"}),
        ({"team": "unknown to Port"}, {}),
        ({"user": "Ada@Example.com"}, {"port_user": "ada@example.com"}),
        ({"user": "u_0123456789abcdef"}, {}),
        ({"repo": "github.com/acme/checkout"}, {"port_service": "checkout"}),
        ({"repo": "github.com/acme/billing"}, {"port_service": "acme/billing"}),
        ({"repo": "github.com/acme/search"}, {"port_service": "github.com/acme/search"}),
        ({"repo": "github.com/acme/other"}, {}),
        ({}, {}),
    ],
)
def test_session_relates_to_the_owners_that_port_has(attribution: dict[str, Any], expected: dict[str, str]) -> None:
    """A relation to an entity that does not exist would have the whole session refused."""
    assert relations(attribution, rules(OURS, EXISTING)) == {**dict.fromkeys(OWNERS), **expected}


def test_sessions_relate_to_no_owner_where_the_blueprint_cannot_or_shall_not() -> None:
    everything = {"team": "payments", "user": "ada@example.com", "repo": "checkout"}
    older = blueprints.fitting(OURS, {"_team"})
    assert older["coding_agent_session"]["relations"].keys() & set(OWNERS) == {"port_team"}
    assert relations(everything, rules(older, EXISTING)) == {"port_team": "payments"}
    assert relations(everything, rules(OURS, EXISTING, ownership=False)) == {}
    unread = {"_team": EXISTING["_team"]}
    assert relations(everything, rules(OURS, unread)) == {"port_team": "payments"}, "what is unknown stays as it is"
    assert not blueprints.load(ownership=False)["coding_agent_session"]["relations"].keys() & set(OWNERS)
    assert OURS["coding_agent_session"]["relations"].keys() > set(OWNERS), "fitting changed what it was given"


def test_own_mappings_never_create_teams_or_users() -> None:
    """In Port, an entity of `_team` or `_user` is a team or user, and `createMissingRelatedEntities` makes it."""
    blueprint = {
        "identifier": "run", "schema": {"properties": {}},
        "relations": {
            "by": {"target": "_user", "required": False, "many": False},
            "service": {"target": "service", "required": False, "many": False},
        },
    }  # fmt: skip
    mapping = """
    createMissingRelatedEntities: true
    resources:
      - kind: session
        selector: {query: 'true'}
        port: {entity: {mappings: {identifier: .id, blueprint: '"run"', relations: {by: .who, service: .what}}}}
    """
    known = rules({"run": blueprint}, EXISTING)
    records: list[Any] = [
        ({"id": "a", "who": who, "what": "new"}, {}) for who in ("ada@example.com", "bob@example.com")
    ]
    found = Mapper(mapping).run("session", records, known)
    assert [entity.body["relations"] for _, entity in found.entities] == [
        {"by": "ada@example.com", "service": "new"}, {"by": None, "service": "new"},
    ]  # fmt: skip
    assert owners([blueprint], ownership=False) == {"_user"}
    assert owners(OURS.values()) == {"_team", "_user", "service"}
    assert owners(OURS.values(), ownership=False) == set()
