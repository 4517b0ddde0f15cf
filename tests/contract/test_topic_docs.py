"""asyncapi.yaml and docs/topics.md must match the models, be complete, and be valid AsyncAPI 3."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.support.otlp_bodies import Group, codex_response, encode

from tallystream.reference import topics
from tallystream.schemas.catalogue import CATALOGUE
from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.packing import messages
from tallystream.streams.kafka.topics import Topics

ROOT = Path(__file__).resolve().parents[2]
SPECIFICATION = Path(
    os.environ.get("TALLYSTREAM_ASYNCAPI_SCHEMA", ROOT / "node_modules/@asyncapi/specs/schemas/3.0.0.json")
)
"""AsyncAPI's own JSON Schema, of the npm package @asyncapi/specs."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "asyncapi.yaml").read_text())
    return loaded


def test_committed_topic_documents_match_the_models() -> None:
    again = "run `tallystream schemas --asyncapi asyncapi.yaml --topics docs/topics.md` and commit the difference"
    assert (ROOT / "asyncapi.yaml").read_text() == topics.asyncapi_yaml(), again
    assert (ROOT / "docs" / "topics.md").read_text() == topics.markdown(), again


@pytest.mark.skipif(not SPECIFICATION.exists(), reason="npm install --no-save @asyncapi/specs brings the schema")
def test_asyncapi_document_is_valid(document: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(json.loads(SPECIFICATION.read_text())).validate(document)


def references(node: object) -> Iterator[str]:
    """Yield every $ref below a node."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def test_every_reference_of_the_asyncapi_document_resolves(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        node: Any = document
        assert reference.startswith("#/")
        for step in reference[2:].split("/"):
            node = node[step]


def test_every_operation_uses_the_messages_of_its_channel(document: dict[str, Any]) -> None:
    for operation in document["operations"].values():
        channel = operation["channel"]["$ref"]
        assert operation["action"] == "send"
        assert operation["messages"]
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])
    assert {operation["channel"]["$ref"] for operation in document["operations"].values()} == {
        f"#/channels/{name}" for name in document["channels"]
    }


def test_topics_page_and_document_are_complete(document: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "topics.md").read_text()
    for spec in Topics().all():
        assert f"| `{spec.name}` |" in page, spec.name
    public = {kind.name for channel in topics.channels() if not channel.internal for kind in channel.kinds}
    internal = {kind.name for channel in topics.channels() if channel.internal for kind in channel.kinds}
    assert public | internal == set(CATALOGUE), "a kind of message is on no topic that we have"
    assert set(document["components"]["messages"]) == public
    for name, kind in ((name, CATALOGUE[name]) for name in public):
        message = document["components"]["messages"][name]
        assert message["headers"]["properties"]["schema"]["const"] == kind.header.decode()


def test_document_schema_accepts_a_real_message_and_refuses_a_broken_one(document: dict[str, Any]) -> None:
    body = encode([Group([codex_response()])], Encoding.JSON)
    ((_, value),) = messages(normalise_logs(body, Encoding.JSON).packs[0], "codex-7f3a", lambda name: name)
    whole = {"$ref": "#/components/schemas/UsageBatch", "components": document["components"]}
    validator = jsonschema.Draft202012Validator(whole)
    batch = json.loads(value)
    validator.validate(batch)
    batch["events"][0]["output"] = -1
    assert not validator.is_valid(batch)


def test_docstring_of_a_field_becomes_its_description(document: dict[str, Any]) -> None:
    event = document["components"]["schemas"]["UsageEvent"]["properties"]
    assert "ns since the epoch" in event["occurred_at"]["description"]
    assert "| `occurred_at` | integer | Event time, ns since the epoch" in (ROOT / "docs" / "topics.md").read_text()
