"""`tallystream openai explore` against the sandbox: Port accepts what it writes, and no row is lost."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.support.waiting import ANSWER

from tallystream.agents.port_sink.mapping import Mapper
from tallystream.agents.port_sink.mapping.entities import rules
from tallystream.cli import main
from tallystream.sandbox import Sandbox, SandboxConfig
from tallystream.schemas.openai import bucket_name
from tallystream.streams.poller.client import OpenAIClient, OpenAIClientConfig
from tallystream.streams.poller.credentials import ApiKey, ApiKeys
from tallystream.streams.poller.query import fetch_buckets, fetch_current
from tallystream.streams.poller.resources import Resource, builtin, load
from tallystream.streams.poller.schedule import TimeSpan

DAY = 86_400
YESTERDAY = '((now | floor) - 86400) | strftime("%Y-%m-%d")'


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Run a sandbox in a separate thread, because the command line runs its own event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    served = Sandbox(SandboxConfig(seed=3))
    # The tests request tokens more often than Port allows.
    served.limits.configure("unauthenticated", 10_000, 1_000)
    asyncio.run_coroutine_threadsafe(served.start(), loop).result(ANSWER)
    yield served
    asyncio.run_coroutine_threadsafe(served.stop(), loop).result(ANSWER)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(ANSWER)
    loop.close()
    assert served.violations() == []


@pytest.fixture
def explore(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Any:
    monkeypatch.setenv("TALLYSTREAM_OPENAI_BASE_URL", f"{sandbox.url}/openai/v1")
    monkeypatch.setenv("TALLYSTREAM_OPENAI_API_TOKEN", "sk-sandbox-explore")

    def run(*args: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["openai", "explore", *args, "--out", str(tmp_path)])
        assert caught.value.code == code
        said = capsys.readouterr()
        return said.out if code == 0 else said.err

    return run


async def polled(sandbox: Sandbox, resource: Resource) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """The input of the sink's mapping for the last seven days: each row, with its bucket according to the poller."""
    now = time.time()
    end = int(now) // DAY * DAY + DAY
    config = OpenAIClientConfig(f"{sandbox.url}/openai/v1")
    async with OpenAIClient(config, ApiKeys({"api": ApiKey("sk-sandbox-explore")})) as client:
        if resource.window is None:
            return [(row, {}) for row in await fetch_current(client, resource, now)]
        start, step = end - 7 * DAY, 7 * DAY if resource.requests == "window" else DAY
        found: dict[int, list[dict[str, Any]]] = {}
        for first in range(start, end, step):
            found |= await fetch_buckets(client, resource, TimeSpan(first, first + step), now)
    return [
        (row, {"bucket": bucket_name(at, DAY), "starts_at": f"{bucket_name(at, DAY)}T00:00:00Z"})
        for at, rows in found.items()
        for row in rows
    ]


async def upserted(sandbox: Sandbox, blueprint: dict[str, Any], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Create the blueprint and send the entities; return the entities in Port."""
    async with aiohttp.ClientSession(sandbox.url + "/port/v1/") as session:
        async with session.post("auth/access_token", json={"clientId": "a", "clientSecret": "b"}) as answer:
            session.headers["Authorization"] = f"Bearer {(await answer.json())['accessToken']}"
        async with session.post("blueprints", json=blueprint) as answer:
            assert answer.status == 201, await answer.text()
        path = f"blueprints/{blueprint['identifier']}/entities"
        for start in range(0, len(found), 20):
            asked = {"entities": found[start : start + 20]}
            async with session.post(f"{path}/bulk?upsert=true&merge=false", json=asked) as answer:
                assert answer.status == 200, await answer.text()
        async with session.get(path) as answer:
            held: list[dict[str, Any]] = (await answer.json())["entities"]
            return held


@pytest.mark.parametrize("resource", builtin(), ids=lambda resource: resource.path)
def test_explored_endpoints_become_entities_that_port_accepts(
    explore: Any, sandbox: Sandbox, tmp_path: Path, resource: Resource
) -> None:
    params = ["--param", f"date={YESTERDAY}"] if resource.path == "/usage" else []
    sample = tmp_path / "sample.json"
    said = json.loads(explore(resource.path, *params, "--json", "--save-sample", str(sample)))
    rows = asyncio.run(polled(sandbox, resource))
    assert len(json.loads(sample.read_text())) == said["rows"] <= len(rows)
    blueprint = json.loads((tmp_path / "blueprint.json").read_text())
    mapper = Mapper((tmp_path / "mapping.yaml").read_text())
    assert mapper.repairs == []
    mapped = mapper.run(resource.path, rows, rules({blueprint["identifier"]: blueprint}))
    assert mapped.failures == []
    held = asyncio.run(upserted(sandbox, blueprint, [dict(entity.body) for _, entity in mapped.entities]))
    assert len(held) == len(rows) > 0


def test_explore_shows_the_shape_with_its_types(explore: Any) -> None:
    said = explore("/models")
    assert "created: integer (epoch)" in said
    assert "owned_by: string" in said
    assert "TALLYSTREAM_OPENAI_API_TOKEN" not in said, "it is set, and a placeholder would replace it"
    assert "TALLYSTREAM_PORT_CLIENT_SECRET=YOUR_PORT_CLIENT_SECRET" in said
    assert "sk-sandbox" not in said


def test_explored_endpoint_can_be_polled_with_the_written_file(explore: Any, tmp_path: Path) -> None:
    explore("/models/gpt-5-codex", "--data", "[.]", "--blueprint", "one_model")
    (added,) = [
        resource for resource in load(tmp_path / "resources.toml").resources if resource.path == "/models/gpt-5-codex"
    ]
    assert added.extractor.page({"id": "gpt-5-codex"}).items[0].rows == [{"id": "gpt-5-codex"}]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("models",), 2, "is not a valid path"),
        (("/models", "--param", "limit"), 2, "is not a valid parameter"),
        (("/models", "--param", "limit=1d"), 2, "is not a JQ expression"),
        (("/models", "--data", ".object"), 2, "no objects"),
        (("/models", "--key", "root"), 2, "kind of key"),
        (("/nope",), 1, "404"),
    ],
)
def test_explore_reports_wrong_options_in_one_line(explore: Any, args: tuple[str, ...], code: int, said: str) -> None:
    assert said in explore(*args, code=code)
