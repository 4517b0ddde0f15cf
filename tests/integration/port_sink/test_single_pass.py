"""A single pass over everything, as in a CronJob; a missing blueprint stops only its own kind."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.port_rig import SESSION, Rig, SinkProcess, make_row, rig, sink
from tests.support.waiting import PATIENCE, until

from tallystream.agents.port_sink.mapping import default_text
from tallystream.sandbox import Fault
from tallystream.schemas.openai import OpenAIRecord, at, digest
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]
HOUR = "2026-11-21T14:00:00Z"
OWN = """
  - kind: session
    selector: {query: "true"}
    port:
      entity:
        mappings:
          identifier: .session_id
          blueprint: '"ourSession"'
"""


async def once(one: Rig, directory: Path, code: int, **environment: str) -> dict[str, Any]:
    """Run `sink --once --json`; return its document, or the error if it fails."""
    process = SinkProcess(one, directory, **environment)
    done = await asyncio.to_thread(
        subprocess.run, [*process.argv, "--once", "--json"], env=process.environment,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout or done.stderr.splitlines()[-1])
    return document


async def test_single_pass_writes_everything_and_exits(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    rng = random.Random(7)
    async with rig(kafka, prefix) as one:
        await one.rows(*(make_row(rng, f"s-{number}", HOUR, 1) for number in range(40)))
        first = await once(one, tmp_path, 0)
        assert not one.wrong_sessions()
        assert first["written"] >= 40
        assert (first["refused"], first["unmapped"], first["waiting"], first["stopped"]) == (0, 0, 0, {})
        assert (await once(one, tmp_path, 0))["written"] == 0, "Port has everything already"
        await one.rows(make_row(rng, "s-new", HOUR, 1))
        assert (await once(one, tmp_path, 0))["written"] > 0
        assert not one.wrong_sessions()


async def test_single_pass_reports_why_it_cannot_run(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with rig(kafka, prefix, credentials=("client", "a-secret-of-ports")) as one:
        await one.rows(make_row(random.Random(1), "s", HOUR, 1))
        away = await once(one, tmp_path, 3, TALLYSTREAM_PORT_BASE_URL="http://127.0.0.1:1")
        assert (away["code"], "reachable" in away["hint"]) == ("port", True)
        wrong = await once(one, tmp_path, 1, TALLYSTREAM_PORT_CLIENT_SECRET="not-this-one")
        assert "credentials" in wrong["message"]
        with sink(one, tmp_path) as running:
            await until(lambda: _says(running, "active"), "it is active")
            await until(lambda: not one.wrong_sessions(), "it has written")
            other = await once(one, tmp_path, 3)
            assert "another sink is the active one" in other["message"]


async def test_missing_blueprint_stops_only_what_is_mapped_to_it(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    mapping = tmp_path / "mapping.yaml"
    lines = default_text().splitlines(keepends=True)
    mapping.write_text("".join(lines).rstrip() + OWN)
    settings = {"TALLYSTREAM_PORT_MAPPING": str(mapping)}
    rng = random.Random(3)
    async with rig(kafka, prefix) as one:
        await one.rows(*(make_row(rng, f"s-{number}", HOUR, 1) for number in range(5)))
        left = await once(one, tmp_path, 1, **settings)
        assert left["stopped"] == {"session": ["ourSession"]}
        assert left["written"] > 0
        assert one.entities("coding_agent_cost_hour") == {}, "no such rows were made"
        assert one.sandbox.store.blueprint("coding_agent_session")
        assert await one.letters() == [], "nothing was tried"
        with sink(one, tmp_path, **settings) as running:
            await until(lambda: _says(running, "Port has no blueprint ourSession"), "it says what is missing")
            assert '"ok":true' in await running.page("/readyz"), "all else is written"
            await one.rows(make_row(rng, "s-5", HOUR, 1))
            await until(lambda: len(one.entities(SESSION)) == 6, "sessions of the default mapping are, too")
            assert not one.wrong_sessions()
            own = {"identifier": "ourSession", "title": "Ours", "schema": {"properties": {}, "required": []}}
            one.sandbox.store.create_blueprint(own, "me", 0)
            await until(lambda: len(one.entities("ourSession")) == 6, "what was left out is written")
            assert not await one.letters()
            assert "Port has no blueprint" not in await running.page("/readyz")


async def test_refused_blueprint_does_not_stop_the_others(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with rig(kafka, prefix) as one:
        await one.rows(make_row(random.Random(3), "s", HOUR, 1))
        one.sandbox.faults.add(Fault(match="/blueprints$", method="POST", status=422, times=1))
        left = await once(one, tmp_path, 1)
        assert len(left["stopped"]) >= 1
        assert left["written"] > 0


COSTS = "/organization/costs"
RESULTS = [
    {"object": "organization.costs.result", "amount": {"value": f"{number}.5", "currency": "usd"}, "line_item": item}
    for number, item in enumerate(("gpt-5, input", "gpt-5, output", "storage"), 1)
]
DAY = 1_795_219_200
BY_RESULTS = """
resources:
  - kind: /organization/costs
    selector: {query: "true", data_path: .data}
    port:
      itemsToParse: .results
      entity:
        mappings:
          identifier: '"\\(.start_time)-\\(.item.line_item)"'
          blueprint: '"ourCost"'
          properties: {amount: .item.amount.value, day: .start_time}
"""
BY_ROWS = (
    BY_RESULTS.replace("      itemsToParse: .results\n", "")
    .replace(".item.", ".")
    .replace(".start_time", "($record.starts_at | fromdate)")
)
NEVER = BY_ROWS.replace('query: "true"', "query: .amount == 1")


@pytest.mark.parametrize("text", [BY_RESULTS, BY_ROWS], ids=["through the results", "of rows"])
async def test_mapping_test_shows_what_the_sink_writes(
    kafka: KafkaSettings, prefix: str, tmp_path: Path, text: str
) -> None:
    mapping, sample = tmp_path / "mapping.yaml", tmp_path / "answer.json"
    mapping.write_text(text)
    bucket = {"object": "bucket", "start_time": DAY, "end_time": DAY + 86_400, "results": RESULTS}
    sample.write_text(json.dumps({"object": "page", "data": [bucket], "has_more": False, "next_page": None}))
    async with rig(kafka, prefix) as one:
        own = {
            "identifier": "ourCost",
            "title": "Ours",
            "schema": {"properties": {"amount": {"type": "string"}, "day": {"type": "number"}}},
        }
        one.sandbox.store.create_blueprint(own, "me", 0)
        record = OpenAIRecord(
            resource=COSTS, query="a" * 16, bucket="2026-11-21", starts_at=at(DAY), ends_at=at(DAY + 86_400),
            polled_at=at(DAY + 90_000), digest=digest(RESULTS), rows=RESULTS,
        )  # fmt: skip
        await one.append(one.topics.openai_records.name, record.key, record.model_dump_json().encode())
        result = await once(one, tmp_path, 0, TALLYSTREAM_PORT_MAPPING=str(mapping))
        assert (result["written"], result["records"]) == (3, {COSTS: 3 if text == BY_ROWS else 1})
        command = ("port", "mapping", "test", str(mapping), "--input", str(sample), "--json")
        tested = await asyncio.to_thread(
            subprocess.run, [*SinkProcess(one, tmp_path).argv[:3], *command],
            env=SinkProcess(one, tmp_path).environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        found = json.loads(tested.stdout)
        assert found["records"] == result["records"][COSTS]
        assert {entity["identifier"] for entity in found["entities"]} == set(one.entities("ourCost")), found
        assert len(one.entities("ourCost")) == 3


async def test_mapping_that_never_matches_is_reported(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(NEVER)
    async with rig(kafka, prefix) as one:
        one.sandbox.store.create_blueprint(
            {"identifier": "ourCost", "title": "Ours", "schema": {"properties": {}}}, "me", 0
        )
        record = OpenAIRecord(
            resource=COSTS, query="a" * 16, bucket="2026-11-21", starts_at=at(DAY), ends_at=at(DAY + 86_400),
            polled_at=at(DAY + 90_000), digest=digest(RESULTS), rows=RESULTS,
        )  # fmt: skip
        await one.append(one.topics.openai_records.name, record.key, record.model_dump_json().encode())
        with sink(one, tmp_path, TALLYSTREAM_PORT_MAPPING=str(mapping)) as running:
            await until(lambda: "mapping_never_matches" in running.said(), "the log says so")
            assert await running.metric("tallystream_sink_unmatched_kinds") == 1


async def _says(running: SinkProcess, what: str) -> bool:
    return what in await running.page("/readyz")
