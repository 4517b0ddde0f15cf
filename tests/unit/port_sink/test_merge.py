"""Several mapping files in one, and Ocean's keys."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tallystream.agents.port_sink.mapping import Mapper, MappingSource, default_text
from tallystream.schemas.errors import UsageError


def text(*resources: tuple[str, str], port: dict[str, Any] | None = None, **options: Any) -> str:
    """Return a mapping of (kind, blueprint)."""
    return yaml.safe_dump(
        {
            **options,
            "resources": [
                {
                    "kind": kind,
                    "port": {
                        "entity": {"mappings": {"identifier": ".id", "blueprint": f'"{blueprint}"'}},
                        **(port or {}),
                    },
                }
                for kind, blueprint in resources
            ],
        }
    )


def named(mapper: Mapper) -> list[tuple[str, set[str]]]:
    return [(kind, mapper.blueprints(kind)) for kind in mapper.kinds]


def test_later_mapping_file_replaces_the_mapping_of_a_kind_to_a_blueprint() -> None:
    default = MappingSource(default_text(), "the default mapping", ("session-hour",), own=False)
    mapper = Mapper(
        default, MappingSource(text(("/models", "openai_model"), ("/models", "mine"), ("/own", "mine")), "b")
    )
    found = dict(named(mapper))
    assert found["/models"] == {"openai_model", "mine"}
    assert found["/own"] == {"mine"}
    assert {"session", "openai-daily"} <= found.keys()
    assert "session-hour" not in found
    ours = [one for one in mapper.resources if one.kind == "/models"]
    assert len(ours) == 2, "the default's own mapping of /models to openai_model is replaced"
    again = Mapper(yaml.safe_dump(mapper.document()))
    assert named(again) == named(mapper)


def test_options_of_several_mapping_files_must_agree() -> None:
    one = MappingSource(text(("/a", "a"), createMissingRelatedEntities=True), "one.yaml")
    silent = MappingSource(text(("/b", "b")), "silent.yaml")
    other = MappingSource(text(("/c", "c"), createMissingRelatedEntities=False), "other.yaml")
    assert Mapper(one, silent).create_missing is True
    with pytest.raises(UsageError, match=r"one.yaml says createMissingRelatedEntities: True, and other.yaml"):
        Mapper(one, other)


def test_items_can_be_named_in_expressions() -> None:
    port = {"itemsToParse": ".parts", "itemsToParseName": "part", "itemsToParseTopLevelTransform": False}
    raw = yaml.safe_load(text(("/a", "a"), port=port))
    raw["resources"][0]["port"]["entity"]["mappings"]["identifier"] = (
        '.id + "-" + .part + "-" + (.parts | length | tostring)'
    )
    mapper = Mapper(yaml.safe_dump(raw))
    (program,) = mapper._programs
    (outcome,) = program.run([({"id": "x", "parts": ["a", "b"]}, {})])
    assert [entity["identifier"] for entity in outcome.entities] == ["x-a-2", "x-b-2"]


def test_differences_to_ocean_are_reported() -> None:
    mapper = Mapper(text(("/a", "a"), entityDeletionThreshold=0.9))
    (note,) = mapper.notes
    assert "entityDeletionThreshold" in note
    raw = yaml.safe_load(text(("/a", "a")))
    mappings = raw["resources"][0]["port"]["entity"]["mappings"]
    mappings["relations"] = {"team": ".team"}
    (note,) = Mapper(yaml.safe_dump(raw)).notes
    assert "createMissingRelatedEntities" in note
    assert Mapper(yaml.safe_dump({**raw, "createMissingRelatedEntities": True})).notes == []
    mappings["identifier"] = {"combinator": '"and"', "rules": []}
    with pytest.raises(UsageError, match="search for the entity"):
        Mapper(yaml.safe_dump(raw))
