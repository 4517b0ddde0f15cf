"""The JSON Schemas of our topics for consumers: committed, equal to the models, and compatible with all released
versions.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.support.compatibility import problems
from tests.support.otlp_bodies import Group, codex_response, encode

from tallystream.cli import main
from tallystream.schemas.catalogue import CATALOGUE
from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.packing import messages

COMMITTED = Path(__file__).parents[2] / "schemas" / "json"
RELEASED = Path(__file__).parent / "released"
each_schema = pytest.mark.parametrize("name", sorted(CATALOGUE))


@each_schema
def test_committed_json_schema_matches_the_model(name: str) -> None:
    assert (COMMITTED / f"{name}.json").read_bytes() == CATALOGUE[name].rendered(), (
        "a model changed: run `tallystream schemas --write schemas/json` and commit the difference"
    )


def test_no_json_schema_is_left_over() -> None:
    assert {path.stem for path in COMMITTED.iterdir()} == set(CATALOGUE)


@each_schema
def test_released_messages_are_still_readable(name: str) -> None:
    schema = CATALOGUE[name]
    frozen = json.loads((RELEASED / f"{name}.{schema.version}.json").read_bytes())
    assert problems(frozen, schema.json_schema()) == []


@each_schema
def test_json_schema_is_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(CATALOGUE[name].json_schema())


def test_committed_schema_accepts_a_real_message_and_refuses_a_broken_one() -> None:
    body = encode([Group([codex_response()])], Encoding.JSON)
    (pack,) = normalise_logs(body, Encoding.JSON).packs
    ((_, value),) = messages(pack, "codex-7f3a", lambda name: name)
    validator = jsonschema.Draft202012Validator(json.loads((COMMITTED / "usage-batch.json").read_bytes()))
    batch = json.loads(value)
    validator.validate(batch)
    batch["events"][0]["output"] = -1
    assert not validator.is_valid(batch)


def change(schema: dict[str, Any], path: str, edit: Any) -> dict[str, Any]:
    """Return a copy of the schema, edited at a dotted path."""
    changed = copy.deepcopy(schema)
    node = changed
    for step in path.split("."):
        node = node[step]
    edit(node)
    return changed


@pytest.mark.parametrize(
    ("path", "edit", "says"),
    [
        ("properties", lambda node: node.pop("provider"), "$.provider: removed"),
        ("required", lambda node: node.append("attribution"), "$.attribution: now required"),
        ("properties.provider", lambda node: node.update(type="integer"), "type string became integer"),
        ("properties.provider", lambda node: node.update(pattern="a"), "pattern anything became a"),
        ("properties.provider", lambda node: node.update(enum=["openai"]), "fewer values"),
        ("properties.session_id", lambda node: node.update(minLength=2), "minLength 1 became 2"),
        ("properties.events", lambda node: node.update(maxItems=5), "maxItems 512 became 5"),
        (
            "$defs.UsageEvent.properties.output",
            lambda node: node.update(minimum=1),
            "events[].output: minimum 0 became 1",
        ),
        ("$defs.UsageEvent.properties", lambda node: node.pop("tool"), "events[].tool: removed"),
        ("$defs.UsageEvent.required", lambda node: node.append("speed"), "events[].speed: now required"),
        ("$defs.UsageEvent.properties.speed.anyOf", lambda node: node.pop(0), "type string became null"),
        ("$defs.Attribution.properties.team.anyOf", lambda node: node.pop(1), "type null became string"),
    ],
)
def test_incompatible_schema_change_is_found(path: str, edit: object, says: str) -> None:
    before = CATALOGUE["usage-batch"].json_schema()
    (found,) = problems(before, change(before, path, edit))
    assert says in found


def test_enum_may_grow_or_become_open_but_not_shrink() -> None:
    closed = {"type": "string", "enum": ["codex", "claude"]}
    assert problems(closed, closed | {"enum": ["codex", "claude", "gemini"]}) == []
    assert problems(closed, {"type": "string"}) == []
    assert problems(closed, closed | {"enum": ["codex"]}) == ["$: fewer values are allowed"]


def test_closing_an_open_object_is_incompatible() -> None:
    assert problems({"type": "object"}, {"type": "object", "additionalProperties": False})
    assert problems({"type": "array"}, {"type": "array", "items": {"type": "string"}})


@pytest.mark.parametrize(
    ("path", "edit"),
    [
        ("properties", lambda node: node.update(more={"type": "string"})),
        ("properties.events", lambda node: node.update(maxItems=1000)),
        ("properties.session_id", lambda node: node.pop("minLength")),
        ("required", lambda node: node.remove("provider")),
        ("$defs.UsageEvent.properties.event_id", lambda node: node.pop("pattern")),
    ],
)
def test_compatible_schema_change_passes(path: str, edit: object) -> None:
    before = CATALOGUE["usage-batch"].json_schema()
    changed = change(before, path, edit)
    assert changed != before
    assert problems(before, changed) == []


def run(*argv: str) -> int:
    """Run the command line and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main(argv)
    return int(left.value.code or 0)


def test_schemas_command_writes_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("schemas", "--write", str(tmp_path / "new")) == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert written == {path.name: path.read_bytes() for path in COMMITTED.iterdir()}
    assert f"{len(CATALOGUE)} JSON Schemas written" in capsys.readouterr().out


def test_schemas_command_lists_kinds_topics_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("schemas") == 0
    shown = capsys.readouterr().out
    assert all(schema.header.decode() in shown and schema.topic in shown for schema in CATALOGUE.values())
    assert run("schemas", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["schema"] for entry in listed] == [schema.header.decode() for schema in CATALOGUE.values()]


def test_unwritable_directory_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run("schemas", "--write", str(tmp_path / "file" / "under")) == 2
    assert "cannot write to" in capsys.readouterr().err
