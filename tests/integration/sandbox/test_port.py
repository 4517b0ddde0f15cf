"""The sandbox's Port over HTTP: the behaviour that writing clients rely on, as the package's docstring describes it."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from tests.support.clock import WallHandClock
from tests.support.openai_rig import NOON

from tallystream.sandbox import Sandbox, SandboxConfig

MODEL = {
    "identifier": "model",
    "title": "Model",
    "schema": {
        "properties": {
            "owner": {"type": "string"}, "at": {"type": "string", "format": "date-time"}, "cost": {"type": "number"},
            "tier": {"type": "string", "enum": ["default", "flex"]},
        },
        "required": ["owner"],
    },
}  # fmt: skip
SESSION = {
    "identifier": "session",
    "title": "Session",
    "schema": {"properties": {"cost": {"type": "number"}, "note": {"type": "string"}}},
    "relations": {
        "model": {"target": "model", "required": False, "many": False},
        "others": {"target": "session", "required": False, "many": True},
    },
}


@dataclass
class Port:
    """A client with a token."""

    sandbox: Sandbox
    clock: WallHandClock
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any, dict[str, str]]:
        url = f"{self.sandbox.url}/port/v1/{path}"
        if body is not None:
            options |= {"data": io.BytesIO(json.dumps(body).encode())}
            options.setdefault("headers", {"Content-Type": "application/json"})
        async with self.session.request(method, url, **options) as answer:
            return answer.status, await answer.json(), {name.lower(): value for name, value in answer.headers.items()}

    async def ok(self, method: str, path: str, body: Any = None, status: int = 200, **options: Any) -> Any:
        got, answer, _ = await self.call(method, path, body, **options)
        assert got == status, answer
        return answer

    async def token(self) -> None:
        answer = await self.ok("POST", "auth/access_token", {"clientId": "id", "clientSecret": "secret"})
        assert answer["expiresIn"] == 10_800
        self.session.headers["Authorization"] = f"Bearer {answer['accessToken']}"

    async def bulk(self, blueprint: str, *entities: dict[str, Any], query: str = "upsert=true&merge=true") -> Any:
        answer = await self.call("POST", f"blueprints/{blueprint}/entities/bulk?{query}", {"entities": list(entities)})
        return answer[0], answer[1]


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    clock = WallHandClock(NOON)
    sandbox = Sandbox(SandboxConfig(credentials=("id", "secret")), clock)
    await sandbox.start()
    async with aiohttp.ClientSession(headers={"User-Agent": "tallystream/1"}) as session:
        one = Port(sandbox, clock, session)
        await one.token()
        for definition in (MODEL, SESSION):
            await one.ok("POST", "blueprints", definition, 201)
        yield one
    await sandbox.stop()
    assert sandbox.violations() == []


async def test_tokens_are_valid_for_three_hours(port: Port) -> None:
    port.clock.seconds += 10_799
    await port.ok("GET", "blueprints")
    port.clock.seconds += 2
    assert (await port.call("GET", "blueprints"))[0] == 401
    await port.token()
    await port.ok("GET", "blueprints")
    wrong = await port.ok("POST", "auth/access_token", {"clientId": "id", "clientSecret": "guess"}, 401)
    assert wrong["ok"] is False


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"identifier": "a b"}, 422),
        ({"identifier": "."}, 422),
        ({"schema": {"properties": {"day": {"type": "string", "format": "date"}}}}, 422),
        ({"schema": {"properties": {}, "required": ["day"]}}, 422),
        ({"relations": {"x": {"target": "nope", "required": False, "many": False}}}, 404),
        ({"identifier": "model"}, 409),
        ({"title": None}, 422),
    ],
)
async def test_sandbox_refuses_blueprints_that_port_refuses(port: Port, change: dict[str, Any], status: int) -> None:
    answer = await port.ok("POST", "blueprints", MODEL | {"identifier": "other"} | change, status)
    assert answer["ok"] is False
    assert answer["message"]


async def test_partly_failed_bulk_gets_207_with_each_reason(port: Port) -> None:
    status, answer = await port.bulk(
        "model",
        {"identifier": "good", "properties": {"owner": "o", "cost": 0.5, "at": "2026-11-21T00:00:00Z", "tier": None}},
        {"identifier": "unknown", "properties": {"owner": "o", "colour": "red"}},
        {"identifier": "type", "properties": {"owner": 5}},
        {"identifier": "format", "properties": {"owner": "o", "at": "yesterday"}},
        {"identifier": "enum", "properties": {"owner": "o", "tier": "gold"}},
        {"identifier": "required", "properties": {"owner": None}},
        {"identifier": "relation", "properties": {"owner": "o"}, "relations": {"x": "y"}},
    )
    assert status == 207
    assert answer["entities"] == [{"created": True, "identifier": "good", "index": 0}]
    assert [(one["identifier"], one["index"], one["statusCode"]) for one in answer["errors"]] == [
        (name, index, 422)
        for index, name in enumerate(["unknown", "type", "format", "enum", "required", "relation"], start=1)
    ]
    assert (await port.ok("GET", "blueprints/model/entities-count"))["count"] == 1


@pytest.mark.parametrize("count", [0, 21])
async def test_bulk_must_have_1_to_20_entities(port: Port, count: int) -> None:
    status, _ = await port.bulk("session", *({"identifier": f"s{n}"} for n in range(count)))
    assert status == 422


async def test_body_over_one_mebibyte_gets_413(port: Port) -> None:
    big = {"identifier": "s", "properties": {"note": "x" * (1 << 20)}}
    assert (await port.bulk("session", big))[0] == 413
    just = {"identifier": "s", "properties": {"note": "x" * 1_000_000}}
    assert (await port.bulk("session", just))[0] == 200


async def test_missing_relation_target_gets_404_until_it_exists(port: Port) -> None:
    entity = {"identifier": "s1", "relations": {"model": "gpt-5"}}
    status, answer = await port.bulk("session", entity)
    assert status == 207
    assert [(one["statusCode"], one["error"]) for one in answer["errors"]] == [(404, "not_found")]
    await port.bulk("model", {"identifier": "gpt-5", "properties": {"owner": "o"}})
    assert (await port.bulk("session", entity))[0] == 200
    missing = {"identifier": "s2", "relations": {"model": "gpt-6", "others": ["s1"]}}
    query = "upsert=true&merge=true&create_missing_related_entities=true"
    assert (await port.bulk("session", missing, query=query))[0] == 200
    assert (await port.ok("GET", "blueprints/model/entities/gpt-6"))["entity"]["properties"] == {}


async def test_bulk_entity_may_relate_to_an_earlier_one(port: Port) -> None:
    status, _ = await port.bulk("session", {"identifier": "a"}, {"identifier": "b", "relations": {"others": ["a"]}})
    assert status == 200


async def test_merge_keeps_omitted_fields_and_override_removes_them(port: Port) -> None:
    path = "blueprints/session/entities"
    first = {"identifier": "s", "title": "S", "properties": {"cost": 1, "note": "n"}}
    await port.ok("POST", f"{path}?upsert=true&merge=true", first, 201)
    await port.ok("POST", f"{path}?upsert=true&merge=true", {"identifier": "s", "properties": {"cost": 2}}, 201)
    kept = (await port.ok("GET", f"{path}/s"))["entity"]
    assert (kept["title"], kept["properties"]) == ("S", {"cost": 2, "note": "n"})
    await port.ok("POST", f"{path}?upsert=true&merge=false", {"identifier": "s", "properties": {"cost": 3}}, 201)
    assert (await port.ok("GET", f"{path}/s"))["entity"]["properties"] == {"cost": 3}
    assert (await port.call("POST", f"{path}?upsert=false", first))[0] == 409


async def test_numbers_keep_their_exact_form(port: Port) -> None:
    path = "blueprints/session/entities"
    text = '{"identifier": "s", "properties": {"cost": 0.1234567890123456789}}'
    headers = {"Content-Type": "application/json"}
    url = f"{port.sandbox.url}/port/v1/{path}?upsert=true"
    async with port.session.post(url, data=text, headers=headers) as answer:
        assert answer.status == 201
        assert "0.1234567890123456789" in await answer.text()


async def test_search_returns_pages_and_filters_by_owner(port: Port) -> None:
    for start in range(0, 50, 10):
        await port.bulk(
            "session", *({"identifier": f"s{n:02}", "properties": {"cost": n}} for n in range(start, start + 10))
        )
    rule = {"property": "$datasource", "operator": "contains", "value": "tallystream/"}
    costly = {"property": "cost", "operator": ">=", "value": 5}
    asked: dict[str, Any] = {"query": {"combinator": "and", "rules": [rule, costly]}, "limit": 20}
    found: list[str] = []
    while True:
        answer = await port.ok("POST", "blueprints/session/entities/search", asked)
        found += [one["identifier"] for one in answer["entities"]]
        if "next" not in answer:
            break
        asked["from"] = answer["next"]
    assert found == [f"s{n:02}" for n in range(5, 50)]
    other = {"query": {"combinator": "and", "rules": [rule | {"value": "port-ocean"}]}}
    assert (await port.ok("POST", "blueprints/session/entities/search", other))["entities"] == []
    strange = {"query": {"combinator": "and", "rules": [
        {"operator": "=", "propertySchema": {"type": "string"}, "value": "x"}]}}  # fmt: skip
    assert (await port.ok("POST", "blueprints/session/entities/search", strange, 422))["error"] == "unsupported"


async def test_identifiers_may_contain_slashes(port: Port) -> None:
    await port.bulk("session", {"identifier": "codex/7f3a=1"})
    assert (await port.ok("GET", "blueprints/session/entities/codex%2F7f3a%3D1"))["entity"][
        "identifier"
    ] == "codex/7f3a=1"
    await port.ok("DELETE", "blueprints/session/entities/codex%2F7f3a%3D1?delete_dependents=false")
    assert (await port.call("GET", "blueprints/session/entities/codex%2F7f3a%3D1"))[0] == 404


async def test_rate_limit_is_reported_and_enforced(port: Port) -> None:
    port.sandbox.limits.configure("entities-bulk", 3, 3)
    statuses, remaining = [], []
    for number in range(5):
        entity = {"entities": [{"identifier": f"s{number}"}]}
        status, _, headers = await port.call("POST", "blueprints/session/entities/bulk?upsert=true", entity)
        statuses.append(status)
        remaining.append(int(headers["x-ratelimit-remaining"]))
        assert (headers["x-ratelimit-limit"], headers["x-ratelimit-period"]) == ("3", "300")
        assert int(headers["x-ratelimit-reset"]) <= port.clock.seconds + 300
        assert "retry-after" not in headers
    assert statuses == [200, 200, 200, 429, 429]
    assert remaining == [2, 1, 0, 0, 0]
    assert port.sandbox.limits.state()["entities-bulk"]["refused"] == 2


async def test_injected_fault_can_happen_after_the_write(port: Port) -> None:
    async with port.session.post(
        f"{port.sandbox.url}/sandbox/faults",
        json={"match": "bulk", "kind": "status", "status": 502, "after": True, "times": 1},
    ) as answer:
        assert answer.status == 201
    assert (await port.bulk("session", {"identifier": "s"}))[0] == 502
    assert (await port.ok("GET", "blueprints/session/entities-count"))["count"] == 1
    status, answer_body = await port.bulk("session", {"identifier": "s"})
    assert (status, answer_body["entities"][0]["created"]) == (200, False)


async def test_state_can_be_inspected_and_contains_no_secrets(port: Port) -> None:
    await port.bulk("session", {"identifier": "s", "properties": {"cost": 0.25}})
    texts = []
    for path in ("", "/requests", "/port/entities", "/port/blueprints", "/faults"):
        async with port.session.get(f"{port.sandbox.url}/sandbox{path}") as answer:
            assert answer.status == 200
            texts.append(await answer.text())
    assert '"datasource":"tallystream/1"' in texts[2]
    assert '"cost":0.25' in texts[2]
    token = port.session.headers["Authorization"].split()[1]
    assert token not in "".join(texts)
    assert "secret" not in "".join(texts)
