"""Schemathesis tests the sandbox against the OpenAPI documents of OpenAI and Port.

It checks every answer against the structures that the APIs publish. The sandbox also checks its own answers and reports
a violation if one differs.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
)

from tallystream.sandbox import Sandbox, SandboxConfig
from tallystream.sandbox.contract import Contract, load
from tallystream.sandbox.trim import OPENAI_PATHS, PORT_PATHS, render, trim

SPECS = Path(__file__).resolve().parents[3] / "shared" / "specs"
BOUNDED = settings(max_examples=12, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
"""Statuses that Port uses without declaring them (400, 409, 429) are not checked; all others are."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Run a sandbox with some data in a separate thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    served = Sandbox(SandboxConfig(seed=2, now=1_795_262_400))
    asyncio.run_coroutine_threadsafe(served.start(), loop).result(10)
    for family in ("entities-bulk", "entities", "search", "entity-upsert", "blueprints", "other", "openai"):
        served.limits.configure(family, 1_000_000, 1_000_000)
    yield served
    asyncio.run_coroutine_threadsafe(served.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
    assert served.violations() == []


@pytest.fixture(scope="module")
def port_token(sandbox: Sandbox) -> str:
    """Create two blueprints and a related entity, and return a token."""
    base = f"{sandbox.url}/port/v1"
    token: str = post(f"{base}/auth/access_token", {"clientId": "a", "clientSecret": "b"}, 200)["accessToken"]
    for definition in BLUEPRINTS:
        post(f"{base}/blueprints", definition, 201, token)
    entities = {"entities": [{"identifier": "one", "properties": {"at": "2026-11-21T00:00:00Z"}}]}
    for name in ("model", "session"):
        post(f"{base}/blueprints/{name}/entities/bulk?upsert=true", entities, 200, token)
    return token


def post(url: str, body: Any, status: int, token: str = "") -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=10) as answer:
        assert answer.status == status
        return json.load(answer)


BLUEPRINTS: list[dict[str, Any]] = [
    {
        "identifier": "model",
        "title": "Model",
        "schema": {"properties": {"at": {"type": "string", "format": "date-time"}}},
    },
    {
        "identifier": "session",
        "title": "Session",
        "schema": {"properties": {"at": {"type": "string", "format": "date-time"}, "cost": {"type": "number"}}},
        "relations": {"model": {"target": "model", "required": False, "many": False}},
    },
]
openai = schemathesis.openapi.from_dict(load("openai"))
legacy = schemathesis.openapi.from_dict(load("openai-legacy"))
port = schemathesis.openapi.from_dict(load("port"))
# The systematic edge cases of Port's blueprints would take a minute by themselves.
port.config.phases.coverage.enabled = False


def judge(case: Any, base: str, token: str) -> None:
    case.call_and_validate(base_url=base, headers={"Authorization": f"Bearer {token}"}, checks=CHECKS, timeout=20)


@openai.parametrize()
@BOUNDED
def test_sandbox_openai_matches_its_openapi_document(case: Any, sandbox: Sandbox) -> None:
    judge(case, f"{sandbox.url}/openai/v1", "sk-sandbox-contract")


@legacy.parametrize()
@BOUNDED
def test_sandbox_legacy_endpoints_match_their_openapi_document(case: Any, sandbox: Sandbox) -> None:
    judge(case, f"{sandbox.url}/openai/v1", "sk-sandbox-contract")


@port.parametrize()
@BOUNDED
def test_sandbox_port_matches_its_openapi_document(case: Any, sandbox: Sandbox, port_token: str) -> None:
    for name in ("identifier", "blueprint_identifier"):
        if case.path_parameters and name in case.path_parameters and case.method != "DELETE":
            case.path_parameters[name] = "session"
    judge(case, f"{sandbox.url}/port", port_token)


def test_sandbox_serves_every_declared_operation() -> None:
    """An operation that the document declares but the sandbox does not implement answers 501."""
    from tallystream.sandbox.openai_api import OpenAIApi
    from tallystream.sandbox.openai_data import Seeded
    from tallystream.sandbox.port_api import PortApi
    from tallystream.sandbox.port_store import Store

    declared = {operation.id for operation in Contract("openai", "openai-legacy").operations}
    assert declared == set(OpenAIApi(Seeded(1))._routes)
    declared = {operation.id for operation in Contract("port", "port-unpublished").operations}
    assert declared == set(PortApi(Store())._routes)


@pytest.mark.skipif(not SPECS.exists(), reason="the published documents are not part of the repository")
@pytest.mark.parametrize(
    ("name", "published", "paths", "methods"),
    [
        ("openai", "openai-usage-openapi.json", OPENAI_PATHS, {"get"}),
        ("port", "port-openapi.json", PORT_PATHS, {"get", "post", "put", "patch", "delete"}),
    ],
)
def test_declared_schemas_match_the_published_documents(
    name: str, published: str, paths: tuple[str, ...], methods: set[str]
) -> None:
    document = json.loads((SPECS / published).read_text())
    text = render(trim(document, paths, frozenset(methods)))
    assert json.loads(text) == load(name)


def test_patching_a_property_without_a_type_is_refused() -> None:
    from tallystream.sandbox.port_store import ChangeRefusedError, Store

    store = Store()
    text = {"type": "string"}
    store.create_blueprint({"identifier": "b", "title": "B", "schema": {"properties": {"x": text}}}, "me", 0)
    with pytest.raises(ChangeRefusedError, match="type"):
        store.change_blueprint("b", {"schema": {"properties": {"x": {"title": "X"}}}}, "me", 0, whole=False)
    assert store.blueprint("b")["schema"]["properties"] == {"x": text}
