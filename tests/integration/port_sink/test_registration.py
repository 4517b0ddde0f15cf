"""Port shows the sink as an integration, with its mapping, its last sync, and samples of its records."""

from __future__ import annotations

import asyncio
import json
import random
import stat
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.port_rig import SESSION, Rig, SinkProcess, make_row, rig, sink
from tests.support.waiting import PATIENCE, until

from tallystream.agents.port_sink.pipeline.registration import shown
from tallystream.sandbox import Fault
from tallystream.streams.kafka.settings import KafkaSettings

HOUR = "2026-11-21T13:00:00Z"
ID = "codex-integration"
PAGE = {"OCEAN__INTEGRATION__IDENTIFIER": ID, "OCEAN__SEND_RAW_DATA_EXAMPLES": "true"}
OCEANS = {
    "installationId": ID, "installationAppType": "custom", "version": "0.1.5-dev",
    "config": {"resources": [{"kind": "/mine"}]},
}  # fmt: skip


def state(one: Rig) -> dict[str, Any]:
    found: dict[str, Any] = one.sandbox.port.integrations.get(ID).get("resyncState", {})
    return found


def calls(one: Rig) -> int:
    return sum(count for name, count in one.sandbox.counts.items() if "/v1/integration" in name)


async def sessions(one: Rig, *names: str) -> None:
    rng = random.Random(31)
    rows = [make_row(rng, name, HOUR, 1) for name in names]
    for row in rows:
        for bucket in row["buckets"]:
            bucket["attribution"] |= {"user": "ada@example.com", "team": "by ada@example.com"}
    await one.rows(*rows)


async def once(one: Rig, directory: Path, **environment: str) -> int:
    made = SinkProcess(one, directory, **environment)
    done = await asyncio.to_thread(
        subprocess.run, [*made.argv, "--once"], env=made.environment, capture_output=True, timeout=PATIENCE, check=False
    )
    return done.returncode


async def test_integration_shows_last_sync_mapping_and_masked_samples(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    async with rig(kafka, prefix) as one:
        await sessions(one, "s1", "s2")
        with sink(one, tmp_path, TALLYSTREAM_PORT_RESYNC="PT3S", **PAGE) as running:
            await until(lambda: one.entities(SESSION).keys() == {"codex-7f3a:s1", "codex-7f3a:s2"}, "both are in Port")
            await until(lambda: one.sandbox.port.integrations.all(), "the integration is registered")
            await until(lambda: state(one).get("status") == "completed", "the sync is reported")
            first = state(one)
            assert first["intervalInMinuets"] == 1
            began, ended, following = (
                datetime.fromisoformat(first[name]) for name in ("lastResyncStart", "lastResyncEnd", "nextResync")
            )
            assert began <= ended
            assert (following - began).total_seconds() == 3
            await until(lambda: state(one)["lastResyncStart"] != first["lastResyncStart"], "so is the next one")
            await until(lambda: (ID, "session") in one.sandbox.port.integrations.examples, "samples are sent")
            assert await running.metric("tallystream_sink_registered") == 1
            assert json.loads(await running.page("/status"))["detail"]["not_registered"] is None
        (found,) = one.sandbox.port.integrations.all()
        assert (found["installationId"], found["installationAppType"]) == (ID, "custom")
        assert found["version"].startswith("tallystream ")
        kinds = [resource["kind"] for resource in found["config"]["resources"]]
        assert {"session", "openai-model", "openai-daily"} <= set(kinds)
        example = found["examples"]["session"][0]
        assert example["session_id"] in ("s1", "s2")
        assert example["attribution"] | {"repo": ""} == {"team": "by ***", "user": "***", "repo": ""}
        (kept,) = [path for path in (tmp_path / "samples").iterdir() if path.stem == "session"]
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert json.loads(kept.read_text())[0]["attribution"]["user"] == "***"

        # A single pass for a CronJob reports its sync, too, before it ends.
        before = state(one)["lastResyncStart"]
        assert await once(one, tmp_path, **PAGE) == 0
        assert state(one)["lastResyncStart"] > before
        assert state(one)["status"] == "completed"


async def test_failing_registration_holds_nothing_up(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with rig(kafka, prefix) as one:
        for status in (403, 500):
            one.sandbox.faults.add(Fault(match="/v1/integration", kind="status", status=status, times=1))
        one.sandbox.faults.add(Fault(match="/v1/integration", kind="hang", seconds=30))
        await sessions(one, "s1")
        assert await once(one, tmp_path, **PAGE) == 0
        with sink(one, tmp_path, **PAGE) as running:
            await sessions(one, "s2")
            await until(lambda: one.entities(SESSION).keys() == {"codex-7f3a:s1", "codex-7f3a:s2"}, "both are in Port")
            await until(lambda: "integration_not_registered" in running.said(), "the failure is logged")
            detail = json.loads(await running.page("/status"))["detail"]
            assert detail["problem"] is None
            assert "Port answered 500" in detail["not_registered"]
            assert await running.metric("tallystream_sink_registered") == 0
            assert '"active"' in await running.page("/readyz")
        assert not one.sandbox.port.integrations.all()


async def test_other_integrations_are_left_alone(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    """Its mapping is what Ocean works by: ours must not replace it."""
    async with rig(kafka, prefix) as one:
        one.sandbox.port.integrations.create(OCEANS)
        await sessions(one, "s1")
        with sink(one, tmp_path, **PAGE) as running:
            await until(lambda: one.entities(SESSION), "the session is in Port")
            await until(lambda: "is not ours" in running.said(), "it is named")
        assert one.sandbox.port.integrations.all() == [OCEANS | {"examples": {}}]
        asked = calls(one)
        await sessions(one, "s2")
        with sink(one, tmp_path, **PAGE, TALLYSTREAM_PORT_REGISTER="false"):
            await until(lambda: len(one.entities(SESSION)) == 2, "the other is in Port, too")
        assert calls(one) == asked


def test_shown_mapping_has_no_headers_or_parameters() -> None:
    selector = {"query": "true", "data_path": ".data", "headers": {"X-Api-Key": "a-secret"}, "body": {"a": "a-secret"}}
    given = {"deleteDependentEntities": True, "resources": [{"kind": "/x", "selector": selector, "port": {}}]}
    assert shown(given) == {
        "deleteDependentEntities": True,
        "resources": [{"kind": "/x", "selector": {"query": "true", "data_path": ".data"}, "port": {}}],
    }
