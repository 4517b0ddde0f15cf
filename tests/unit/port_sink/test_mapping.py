"""Mappings: those of Port's page as pasted, the repairs made to them, and records on which an expression fails."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from tests.support.port_page import DAILY, MODELS, PASTED, USAGE, flattened

from tallystream.agents.port_sink import blueprints
from tallystream.agents.port_sink.documents.amounts import usable
from tallystream.agents.port_sink.mapping import Mapped, Mapper, default_text
from tallystream.agents.port_sink.mapping.entities import rules
from tallystream.agents.port_sink.mapping.mapper import collisions
from tallystream.schemas.errors import UsageError

KNOWN = rules(blueprints.load(session_hours=True))
DAY = 1_795_219_200
HEAD = """\
resources:
  - kind: session
    selector:
      query: 'true'
    port:
      entity:
        mappings:
          identifier: .id
          blueprint: '"coding_agent_session"'
          properties:
            session_id: .id
            client: '"codex"'
"""


def run(mapper: Mapper, kind: str, *rows: object) -> Mapped:
    found = mapper.run(kind, [(row, {"resource": kind}) for row in usable(kind, rows)[0]], KNOWN)
    return collisions(found.entities, found.failures)


def one(expression: str, row: Any, *, field: str = "title") -> Any:
    """Return the result of an expression for a field of a session."""
    mapper = Mapper(HEAD + f"          {field}: {expression}\n")
    found = run(mapper, "session", {"id": "s", **row})
    return found.entities[0][1].body.get(field) if found.entities else found.failures[0][1]


@pytest.mark.parametrize("paste", [str, flattened], ids=["as printed", "as plain text"])
class TestThePage:
    def test_mapping_of_days_is_exact(self, paste: Any) -> None:
        mapper = Mapper(paste(DAILY))
        found = run(
            mapper,
            "/dashboard/billing/usage",
            {"timestamp": Decimal("1795219200.0"), "line_items": [{"name": "a", "cost": Decimal("123.4567")},
                                                                  {"name": "b", "cost": Decimal("0.1")}]},
            {"timestamp": DAY - 86_400, "line_items": []},
            {"timestamp": None, "line_items": []},
        )  # fmt: skip
        assert [entity.body for _, entity in found.entities] == [
            {"identifier": "daily-2026-11-21", "title": "OpenAI Usage 2026-11-21",
             "properties": {"date": "2026-11-21T00:00:00Z", "total_requests": 0, "total_tokens": 0,
                            "total_cost": 1.235567}},
            {"identifier": "daily-2026-11-20", "title": "OpenAI Usage 2026-11-20",
             "properties": {"date": "2026-11-20T00:00:00Z", "total_requests": 0, "total_tokens": 0, "total_cost": 0}},
        ]  # fmt: skip
        ((index, failure),) = found.failures
        assert (index, failure.field) == (2, "identifier"), "a day without a date is refused, not `daily-unknown`"
        whys = "\n".join(f"{repair.where}: {repair.why}" for repair in mapper.repairs)
        assert "single quotes" in whys
        assert "numbers" in whys
        assert "constant" in whys
        assert ".daily_costs" in whys
        assert "total" in whys

    def test_mapping_of_usage_by_model_and_key_is_exact(self, paste: Any) -> None:
        mapper = Mapper(paste(USAGE))
        usage = {"aggregation_timestamp": DAY, "snapshot_id": "gpt-4o", "operation": "completion", "n_requests": 2,
                 "n_context_tokens_total": 10, "n_generated_tokens_total": 5}  # fmt: skip
        found = run(
            mapper,
            "/usage",
            usage | {"api_key_id": "key_a"},
            usage | {"api_key_id": "key_b", "n_requests": 3},
            usage,
            usage | {"snapshot_id": None},
            usage | {"aggregation_timestamp": None},
        )
        assert [(entity.key.identifier, entity.body["properties"]["requests"]) for _, entity in found.entities] == [
            ("gpt-4o-1795219200-key_a", 2), ("gpt-4o-1795219200-key_b", 3), ("gpt-4o-1795219200", 2),
        ]  # fmt: skip
        assert found.entities[0][1].body["properties"] == {
            "model": "gpt-4o", "date": "2026-11-21T00:00:00Z", "requests": 2, "tokens": 15,
        }  # fmt: skip
        assert [(index, failure.field) for index, failure in found.failures] == [(3, "identifier"), (4, "identifier")]

    def test_mapping_of_models_is_exact(self, paste: Any) -> None:
        mapper = Mapper(paste(MODELS))
        found = run(mapper, "/models", {"id": "ft:a b", "object": "model", "created": 1, "owned_by": "acme"})
        assert [entity.body for _, entity in found.entities] == [
            {"identifier": "ft:a=20b", "title": "ft:a b",
             "properties": {"modelId": "ft:a b", "object": "model", "ownedBy": "acme", "permission": None}}
        ]  # fmt: skip

    def test_three_pasted_mappings_are_combined(self, paste: Any) -> None:
        assert Mapper(paste(PASTED)).kinds == ("/dashboard/billing/usage", "/usage", "/models")


def test_default_mapping_needs_no_repairs_and_uses_our_blueprints() -> None:
    mapper = Mapper(default_text())
    assert mapper.repairs == []
    assert mapper.blueprints() == KNOWN.keys()


def test_money_is_a_rounded_number_and_an_exact_text() -> None:
    text = default_text()
    row = {"day": "2026-11-21", "requests": None, "tokens": 3, "cost": Decimal("1234567.123456789012"),
           "cost_usd": "1234567.123456789012"}  # fmt: skip
    ((_, entity),) = run(Mapper(text), "openai-daily", row).entities
    assert entity.body["properties"] == {
        "date": "2026-11-21T00:00:00Z", "total_requests": None, "total_tokens": 3,
        "total_cost": 1234567.123456789012,
    }  # fmt: skip
    # cents that only floats get wrong: 0.07 * 100 is 7.000000000000001
    sums = Mapper(HEAD + "            cost_usd: .a * 100\n            output_tokens: .big\n")
    ((_, entity),) = run(sums, "session", {"id": "s", "a": Decimal("0.07"), "big": 2**53 - 1}).entities
    assert entity.body["properties"]["cost_usd"] == 7
    assert entity.body["properties"]["output_tokens"] == 2**53 - 1


def test_failing_record_names_its_expression_and_affects_no_others() -> None:
    mapper = Mapper(HEAD + "          title: .a + 1 | tostring\n")
    found = run(mapper, "session", {"id": "x", "a": 1}, {"id": "y", "a": "text"}, {"id": "z", "a": 2})
    assert [entity.body["title"] for _, entity in found.entities] == ["2", "3"]
    ((index, failure),) = found.failures
    assert (index, failure.field, failure.expression) == (1, "title", ".a + 1 | tostring")
    assert "cannot be added" in failure.reason


@pytest.mark.thorough
def test_endless_expression_affects_only_its_records() -> None:
    """It is tried on the first few records, for seconds each, and not on the others."""
    mapper = Mapper(HEAD + "          title: 'def f: f; f'\n")
    found = run(mapper, "session", *({"id": str(number)} for number in range(6)))
    assert not found.entities
    assert [index for index, _ in found.failures] == list(range(6))
    assert found.failures[0][1].field == "title"
    assert "does not end" in found.failures[0][1].reason
    assert "did not end" in found.failures[-1][1].reason
    other = run(Mapper(HEAD + "          title: '.id'\n"), "session", {"id": "x"})
    assert other.entities[0][1].body["title"] == "x"


def test_null_in_a_required_property_is_refused_with_its_expression() -> None:
    found = run(Mapper(HEAD.replace("client: '\"codex\"'", "client: .client")), "session", {"id": "s"})
    ((_, failure),) = found.failures
    assert (failure.field, failure.expression) == ("properties.client", ".client")
    assert "requires" in failure.reason


def test_contradicting_records_are_both_refused() -> None:
    mapper = Mapper(HEAD + "          title: .a\n")
    found = run(mapper, "session", {"id": "s", "a": "1"}, {"id": "s", "a": "2"}, {"id": "t", "a": "1"},
                {"id": "t", "a": "1"})  # fmt: skip
    assert {entity.key.identifier for _, entity in found.entities} == {"t"}
    assert [index for index, _ in found.failures] == [0, 1]


def test_query_items_and_several_mappings_work_together() -> None:
    mapper = Mapper(
        """
resources:
  - kind: session
    selector:
      query: .keep
    port:
      itemsToParse: .parts
      entity:
        mappings:
          - identifier: .id + "-" + .item.n
            blueprint: '"openai_model"'
            properties: {modelId: .item.n}
          - identifier: .id
            blueprint: '"openai_model"'
            properties: {modelId: .id}
            relations: {a: .item.n, b: "[.item.n, \\"x y\\"]", c: 'null'}
"""
    )
    found = run(
        mapper, "session", {"id": "s", "keep": True, "parts": [{"n": "1"}]}, {"id": "t", "keep": False, "parts": [1]},
        {"id": "u", "keep": True}, {"id": "v", "keep": True, "parts": [{"n": "1"}, {"n": 2}]},
    )  # fmt: skip
    assert [entity.body for _, entity in found.entities] == [
        {"identifier": "s-1", "properties": {"modelId": "1"}},
        {"identifier": "s", "properties": {"modelId": "s"}, "relations": {"a": "1", "b": ["1", "x=20y"], "c": None}},
    ], "one is not selected, one has no items, and one fails"
    assert [(index, failure.field) for index, failure in found.failures] == [(3, "mappings[0].identifier")]


def test_expressions_see_neither_the_environment_nor_other_input() -> None:
    assert one("(env | length | tostring) + ($ENV | length | tostring)", {}) == "00"
    assert "input is not available" in one("input", {}).reason
    assert one("[inputs] | length | tostring", {}) == "0"
    assert "halt" in one("halt", {}).reason
    assert one("'.id # says }'", {}) == "s"
    assert one("empty", {}) is None
    assert one('"a", "b"', {}) == "a"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("resources: []", "resources"),
        ("- a\nb: c", "line 2"),
        (HEAD + "          title: .a |\n", "title"),
        (HEAD + "          title: .a) | (.b\n", "title"),
        (HEAD.replace("identifier: .id", "identfier: .id"), "identifier"),
        (HEAD + "          colour: .a\n", "colour"),
    ],
)
def test_invalid_mapping_is_reported_with_the_place(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("[", r"\[")):
        Mapper(text)
