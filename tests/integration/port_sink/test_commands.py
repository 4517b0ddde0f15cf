"""`tallystream port ...` commands."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.port_page import DAILY, PASTED, flattened
from tests.support.port_rig import SESSION, SRC, make_row, rig, sink
from tests.support.waiting import PATIENCE, until

from tallystream.sandbox import Sandbox, SandboxConfig
from tallystream.streams.kafka.settings import KafkaSettings

HOUR = "2026-11-21T13:00:00Z"


async def run(*args: str, code: int = 0, stdin: str = "", **environment: Any) -> str:
    """Run a command, check its exit code and return stdout, or stderr if it fails."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TALLYSTREAM_")}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tallystream", *args],
        capture_output=True, text=True, input=stdin, timeout=PATIENCE, check=False,
        env={**kept, "PYTHONPATH": str(SRC), "COLUMNS": "200", **environment},
    )  # fmt: skip
    assert done.returncode == code, f"{args} exited {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "a-secret" not in done.stdout + done.stderr
    return str(done.stdout or done.stderr)


def at(sandbox: Sandbox, **changes: str) -> dict[str, Any]:
    return {
        "TALLYSTREAM_PORT_BASE_URL": f"{sandbox.url}/port",
        "TALLYSTREAM_PORT_CLIENT_ID": "client",
        "TALLYSTREAM_PORT_CLIENT_SECRET": "a-secret",
        **changes,
    }


async def test_blueprints_are_compared_created_and_extended_but_never_reduced() -> None:
    sandbox = Sandbox(SandboxConfig(credentials=("client", "a-secret")))
    await sandbox.start()
    try:
        here = at(sandbox)
        found = json.loads(await run("port", "blueprints", "diff", "--json", code=4, **here))
        assert {one["what"] for one in found["differences"]} == {"missing"}
        assert len(found["differences"]) == 7
        assert "missing" in await run("port", "blueprints", "diff", code=4, **here)
        await run("port", "blueprints", "apply", code=130, stdin="n\n", **here)
        assert not sandbox.store.blueprints()
        await run("port", "blueprints", "apply", "--yes", **here)
        assert len(sandbox.store.blueprints()) == 7
        assert "includes everything" in await run("port", "blueprints", "diff", **here)

        mine = {**sandbox.store.blueprint("openai_model"), "title": "Models"}
        mine["schema"] = {**mine["schema"], "properties": {**mine["schema"]["properties"], "own": {"type": "string"}}}
        del mine["schema"]["properties"]["ownedBy"]
        sandbox.store.change_blueprint("openai_model", mine, "me", 0, whole=True)
        found = json.loads(await run("port", "blueprints", "diff", "--json", code=4, **here))
        assert {(one["what"], one["path"]) for one in found["differences"]} == {
            ("changed", "title"), ("added", "schema.properties.ownedBy"),
        }  # fmt: skip
        shown = await run("port", "blueprints", "diff", code=4, **here, COLUMNS="80")
        assert '{"type": "string", "title": "Owned By"}' in shown
        assert "--yes" in await run("port", "blueprints", "apply", "--json", code=2, **here)
        assert sandbox.store.blueprint("openai_model")["title"] == "Models"
        await run("port", "blueprints", "apply", "--json", "--yes", **here)
        properties = sandbox.store.blueprint("openai_model")["schema"]["properties"]
        assert {"own", "ownedBy"} <= properties.keys()
        assert json.loads(await run("port", "blueprints", "diff", "--json", **here))["differences"] == []

        wrong = await run(
            "port", "blueprints", "diff", code=1, **at(sandbox, TALLYSTREAM_PORT_CLIENT_SECRET="a-secret2")
        )
        assert "TALLYSTREAM_PORT_CLIENT_SECRET" in wrong
        away = await run(
            "port", "blueprints", "diff", code=3, **at(sandbox, TALLYSTREAM_PORT_BASE_URL="http://127.0.0.1:1")
        )
        assert "reachable" in away
        assert "credentials" in await run("port", "blueprints", "diff", code=2)
        assert not sandbox.violations()
    finally:
        await sandbox.stop()


async def test_mapping_is_tested_on_a_sample(tmp_path: Path) -> None:
    answer: dict[str, Any] = {
        "object": "list",
        "daily_costs": [{"timestamp": 1795219200.0, "line_items": [{"name": "x", "cost": 12.5}]},
                        {"line_items": []}],
        "total_usage": 12.5,
    }  # fmt: skip
    (tmp_path / "mapping.yaml").write_text(flattened(DAILY))
    (tmp_path / "sample.json").write_text(json.dumps(answer))
    args = ("port", "mapping", "test", str(tmp_path / "mapping.yaml"), "--input", str(tmp_path / "sample.json"))
    found = json.loads(await run(*args, "--json", code=4))
    assert [entity["identifier"] for entity in found["entities"]] == ["daily-2026-11-21"]
    assert found["entities"][0]["properties"]["total_cost"] == 0.125
    assert [(one["record"], one["field"]) for one in found["failures"]] == [(1, "identifier")]
    assert "unknown" not in json.dumps(found["entities"])
    assert set(found["query_params"]) == {"start_date", "end_date"}
    assert found["query_params"]["start_date"] < found["query_params"]["end_date"]
    shown = await run(*args, code=4)
    assert "repaired" in shown
    assert "daily-2026-11-21" in shown

    (tmp_path / "all.yaml").write_text(PASTED)
    several = ("port", "mapping", "test", str(tmp_path / "all.yaml"), "--input", "-")
    assert "--kind" in await run(*several, stdin="[]", code=2)
    model = '{"data": [{"id": "m", "object": "model", "created": 1, "owned_by": "o"}]}'
    assert '"modelId": "m"' in await run(*several, "--kind", "/models", stdin=model)
    assert "no JSON" in (await run(*several, "--kind", "/models", stdin="{", code=2)).replace("not", "no")
    assert "resources:" in await run("port", "mapping", "show")


@pytest.mark.kafka
async def test_resync_restores_entities_changed_in_port(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with rig(kafka, prefix) as one:
        await one.rows(*(make_row(random.Random(3), f"s{number}", HOUR, 1) for number in range(5)))
        with sink(one, tmp_path):
            await until(lambda: not one.wrong_sessions(), "all are there")
            one.sandbox.store.delete(SESSION, "codex-7f3a:s1", dependents=False)
            one.sandbox.store.patch(
                SESSION, "codex-7f3a:s2", {"properties": {"requests": 0}}, _how(), "somebody else", 0.0
            )
            where: dict[str, Any] = {"TALLYSTREAM_KAFKA": kafka.bootstrap, "TALLYSTREAM_PREFIX": one.topics.prefix}
            told = json.loads(await run("port", "resync", "--blueprint", SESSION, "--json", **where))
            assert told == {"forgotten": 5}
            await until(lambda: not one.wrong_sessions(), "all are there again")


@pytest.mark.kafka
async def test_sink_reports_why_it_cannot_start_and_starts_later(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    async with rig(kafka, prefix, credentials=("client", "another-secret")) as one:
        await one.rows(make_row(random.Random(4), "s", HOUR, 1))
        with sink(one, tmp_path) as running:
            await until(lambda: _says(running, "invalid credentials"), "it says that its credentials are wrong")
            assert '"ok":true' in await running.page("/healthz"), "to restart it would not help"
            assert await running.stop() == 0
        secret = tmp_path / "secret"
        secret.write_text("another-secret\n")
        settings = {"TALLYSTREAM_PORT_CLIENT_SECRET_FILE": str(secret), "TALLYSTREAM_PORT_INITIALIZE": "false"}
        with sink(one, tmp_path, **settings) as running:
            await until(lambda: _says(running, "Port has no blueprint"), "it says that there are no blueprints")
            assert not one.sandbox.store.blueprints()
            here = at(one.sandbox, TALLYSTREAM_PORT_CLIENT_SECRET="another-secret")
            await run("port", "blueprints", "apply", "--yes", **here)
            await until(lambda: not one.wrong_sessions(), "it has begun")
            assert "another-secret" not in running.said()


async def _says(running: Any, what: str) -> bool:
    return what in await running.page("/readyz")


def _how() -> Any:
    from tallystream.sandbox.port_store import How

    return How()


async def test_differences_fit_a_narrow_terminal() -> None:
    """However long a value is: an enum of all agents, a widget, an aggregation property."""
    sandbox = Sandbox(SandboxConfig(people=True))
    await sandbox.start()
    try:
        here = at(sandbox, COLUMNS="80")
        await run("port", "apply", "--yes", **here)
        session = sandbox.store.blueprint(SESSION)
        properties = {**session["schema"]["properties"], "client": {"type": "string", "enum": ["codex"]}}
        fields = {"schema": {**session["schema"], "properties": properties}, "relations": {}}
        sandbox.store.change_blueprint(SESSION, fields, "me", 0, whole=False)
        sandbox.store.change_blueprint("_team", {"aggregationProperties": {}}, "me", 0, whole=False)
        page = sandbox.port.pages.get("coding_agent_costs")
        page["widgets"] = [{**page["widgets"][0], "widgets": [], "layout": []}]
        shown = await run("port", "apply", "--check", **here, code=4)
        assert "added relations.models" in shown
        assert "added widgets.codingAgentDays" in shown
        assert "added aggregationProperties.coding_agent_spend_last_month" in shown
        assert '"copilot"' in shown, "the beginning of a long value is shown"
        assert max(map(len, shown.splitlines())) <= 80
    finally:
        await sandbox.stop()
