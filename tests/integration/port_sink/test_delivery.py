"""The sink on real Kafka against the sandbox's Port over HTTP: what it writes, and how it handles refusals."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.port_rig import SESSION, Rig, differences, make_row, rig, sink
from tests.support.waiting import until

from tallystream.agents.port_sink.mapping import default_text
from tallystream.sandbox import Fault
from tallystream.schemas import keys
from tallystream.schemas.deadletters import DeadLetter
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]
MODEL = "openai_model"
HOURS = ("2026-11-21T13:00:00Z", "2026-11-21T14:00:00Z", "2026-11-21T15:00:00Z")


def fleet(rng: random.Random, sessions: int) -> list[dict[str, Any]]:
    """Generate rows of sessions, most of them in several versions, some of which arrive late."""
    rows = [
        make_row(rng, f"session-{number}", hour, version)
        for number in range(sessions)
        for hour in rng.sample(HOURS, rng.randint(1, 3))
        for version in rng.sample(range(100), rng.randint(1, 3))
    ]
    rng.shuffle(rows)
    return rows


async def caught_up(one: Rig) -> None:
    """Wait until Port has the expected entities."""
    await until(lambda: not one.wrong_sessions(), lambda: f"sessions differ: {one.wrong_sessions()}")


async def test_every_kind_of_row_becomes_its_entities_in_port(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    rng = random.Random(5)
    async with rig(kafka, prefix) as one:
        await one.rows(*fleet(rng, 60))
        await one.append(
            one.topics.connections.name,
            b"codex-7f3a",
            {"connection_id": "codex-7f3a", "provider": "codex", "name": "laptop", "created_at": "2026-11-01T00:00:00Z",
             "ingest": [{"sha256": "ab" * 32, "expires_at": None}], "bearer_sha256": "cd" * 32, "revoked_at": None},
        )  # fmt: skip
        for signal, at, requests in (("logs", "2026-11-21T14:10:00Z", 7), ("metrics", "2026-11-21T15:10:00Z", 2)):
            await one.append(
                one.topics.activity.name,
                keys.join("codex-7f3a", signal, "g"),
                {"connection_id": "codex-7f3a", "signal": signal, "gateway": "g", "last_synced_at": at,
                 "requests": requests, "records": 10 * requests},
            )  # fmt: skip
        sums = {"requests": 1, "input_uncached": 5, "cache_read": 0, "cache_write_5m": 1, "cache_write_1h": 2,
                "output": 3, "reasoning": 0, "tool": 0, "total_tokens": 11, "cost_usd": "0.000000000001",
                "reported_cost_usd": None, "unpriced_requests": 0, "late_events": 0}  # fmt: skip
        for partition in range(3):
            for version in (4, 9, 6):
                await one.append(
                    one.topics.hour_rows.name,
                    keys.join(str(partition), "codex-7f3a", HOURS[0], "gpt-5", "search"),
                    {**sums, "partition": partition, "connection_id": "codex-7f3a", "hour": HOURS[0],
                     "model": "gpt-5", "team": "search", "requests": version, "version": [0, version]},
                    partition,
                )  # fmt: skip
        with sink(one, tmp_path, TALLYSTREAM_PORT_SESSION_HOURS="true", TALLYSTREAM_PORT_SAMPLES="true") as running:
            await caught_up(one)
            hours = await until(lambda: one.entities("coding_agent_cost_hour"), "hours are there")
            assert hours[f"{HOURS[0]}:gpt-5"]["properties"] | {"cost_usd": 0} == {
                "hour": HOURS[0], "model": "gpt-5", "cost_usd": 0, "cost_exact": "0.000000000003", "requests": 27,
                "unpriced_requests": 0, "total_tokens": 33, "input_tokens": 15, "cache_read_tokens": 0,
                "cache_write_tokens": 9, "output_tokens": 9, "agent_names": [],
            }  # fmt: skip
            assert float(hours[f"{HOURS[0]}:gpt-5"]["properties"]["cost_usd"]) == 3e-12
            await until(running.idle, "everything else is there")
            connection = one.entities("coding_agent_connection")["codex-7f3a"]
            assert connection["title"] == "laptop"
            assert connection["properties"] == {
                "provider": "codex", "state": "active", "created_at": "2026-11-01T00:00:00Z",
                "last_synced_at": "2026-11-21T15:10:00Z", "requests": 9, "records": 90,
            }  # fmt: skip
            assert one.entities("coding_agent_session_hour").keys() == {":".join(name) for name in one.newest}
            assert one.entities("openai_model").keys() == {"gpt-5", "gpt-5-codex", "o4-mini"}
            assert not await one.letters()
            await until((tmp_path / "samples" / "session.json").exists, "samples are kept")

            # only changes are sent
            writes = one.sandbox.store.writes
            await one.rows(make_row(rng, "session-7", HOURS[2], 1000))
            await caught_up(one)
            assert one.sandbox.store.writes - writes <= 2  # the session and its hour
            assert await running.stop() == 0
            assert "a-secret-of-ports" not in running.said()


async def test_nothing_is_sent_again_after_a_restart(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with rig(kafka, prefix) as one:
        await one.rows(*fleet(random.Random(6), 40))
        with sink(one, tmp_path) as running:
            await caught_up(one)
            await until(running.idle, "everything else is there, too")
            assert await running.stop() == 0
        writes = one.sandbox.store.writes
        for place in (tmp_path, tmp_path / "another machine"):
            place.mkdir(exist_ok=True)
            with sink(one, place) as running:
                await until(lambda: running.metric("tallystream_sink_sweeps_total"), "everything was compared")
                await until(
                    lambda: running.metric("tallystream_sink_entities_unchanged_total"), "unchanged ones were counted"
                )
                assert await running.stop() == 0
        assert one.sandbox.store.writes == writes


async def test_failures_in_a_bulk_do_not_affect_other_entities(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    rng = random.Random(7)
    mapping = tmp_path / "mapping.yaml"
    # Port refuses a text where the blueprint wants a number, and JQ fails where a number meets a text.
    mapping.write_text(
        default_text()
        .replace(
            "requests: .requests\n            unpriced",
            'requests: (if .session_id == "bad" then "x" else .requests end)\n            unpriced',
            1,
        )
        .replace("title: .session_id\n", 'title: (if .session_id == "worse" then 1 + "a" else .session_id end)\n', 1)
    )  # fmt: skip
    async with rig(kafka, prefix) as one:
        with sink(one, tmp_path, TALLYSTREAM_PORT_MAPPING=str(mapping)) as running:
            await one.rows(*(make_row(rng, name, HOURS[0], 1) for name in ("bad", "worse", *map(str, range(30)))))
            good = {
                name: value for name, value in one.expected_sessions().items() if "ba" not in name and "wo" not in name
            }
            await until(lambda: not differences(good, one.entities(SESSION)), "the good ones are there")
            letters = await until(lambda: _two(one), "both are kept")
            for letter in letters.values():
                DeadLetter.model_validate(letter)
            refused = letters["port_refused"]
            assert refused["record"]["entity"]["properties"]["session_id"] == "bad"
            assert "requests" in refused["detail"]
            failed = letters["mapping_failed"]
            assert failed["record"]["field"] == "title"
            assert '1 + "a"' in failed["detail"]
            assert "cannot be added" in failed["detail"]
            assert failed["record"]["record"]["session_id"] == "worse"
            for name in ("mapping_errors", "entities_failed"):
                metric = f"tallystream_sink_{name}_total"
                await until(partial(running.metric, metric), f"{name} are counted")
                assert await running.metric(metric) == 1


async def _two(one: Rig) -> dict[str, Any] | None:
    found = {letter["reason"]: letter for letter in await one.letters()}
    return found if len(found) == 2 else None


async def listed(one: Rig, day: str, *names: str) -> None:
    """Append OpenAI's list of models as it was polled on a day."""
    rows = [{"id": name, "object": "model", "created": 1, "owned_by": "system"} for name in names]
    record: dict[str, Any] = {
        "resource": "/models", "query": "0" * 16, "params": {}, "bucket": "current", "starts_at": None,
        "ends_at": None, "polled_at": f"{day}T14:00:00Z", "digest": "0" * 16, "rows": rows, "decimals": [],
    }  # fmt: skip
    await one.append(one.topics.openai_records.name, keys.join("/models", "0" * 16, "current"), record)


async def test_entity_waits_for_its_missing_relation_target(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    rng = random.Random(8)
    mapping = tmp_path / "mapping.yaml"
    # Only models that OpenAI lists, so that sessions do not bring along those that they used.
    mapping.write_text(
        default_text().replace("kind: openai-model", "kind: /models").replace(": .model\n", ": .id\n", 3)
    )
    async with rig(kafka, prefix) as one:
        with sink(one, tmp_path, TALLYSTREAM_PORT_MAPPING=str(mapping)) as running:
            await one.rows(*(make_row(rng, f"s{number}", HOURS[0], 1) for number in range(25)))
            await until(lambda: running.metric("tallystream_sink_deferred_entities"), "sessions wait for their models")
            assert not one.entities(SESSION)
            await listed(one, "2026-11-21", "gpt-5", "gpt-5-codex", "o4-mini", "ft:gpt-4o:acme:release notes:9x")
            await caught_up(one)
            assert "ft:gpt-4o:acme:release=20notes:9x" in one.entities("openai_model")
            assert not await one.letters()


async def test_entities_arrive_despite_rate_limits_and_port_failures(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    rng = random.Random(9)
    async with rig(kafka, prefix) as one:
        one.sandbox.limits.configure("entities-bulk", 3000, 20)  # ten a second, and a small burst
        with sink(one, tmp_path) as running:
            await one.rows(*(make_row(rng, f"s{number}", HOURS[0], 1) for number in range(600)))
            await caught_up(one)
            state = one.sandbox.limits.state()["entities-bulk"]
            assert state["refused"] == 0
            assert state["calls"] <= 600 / 20 + 12
            assert await running.metric("tallystream_sink_throttled_requests_total") == 0

            bulk = "entities/bulk"
            for fault in (
                Fault(match=bulk, kind="status", status=429, retry_after=1, times=1),
                Fault(match=bulk, kind="status", status=503, times=1),
                Fault(match=bulk, kind="reset", times=1),
                Fault(match=bulk, kind="reset", after=True, times=1),
                Fault(match=bulk, kind="half", times=1),
                Fault(match=bulk, kind="truncate", times=1),
                Fault(match="access_token", kind="status", status=500, times=1),
            ):
                one.sandbox.faults.add(fault)
            one.sandbox.port.expire_tokens()
            await one.rows(*(make_row(rng, f"s{number}", HOURS[1], 2) for number in range(40)))
            # Port may have everything from a request whose answer was lost, while the sink still repeats it.
            await until(
                lambda: all(fault["hit"] for fault in one.sandbox.faults.state()),
                lambda: f"every fault happens: {one.sandbox.faults.state()}",
            )
            await caught_up(one)
            assert await running.metric("tallystream_sink_throttled_requests_total") == 1
            assert not await one.letters()

            # a request without an answer is sent once more, in case it takes effect late, and then no more
            one.sandbox.faults.clear()
            await until(lambda: running.metric("tallystream_sink_entities_resent_total"), "doubts are resolved")


async def test_entities_are_deleted_only_by_the_retention_rule(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    rng = random.Random(10)
    async with rig(kafka, prefix) as one:
        await one.rows(make_row(rng, "old", "2024-01-01T00:00:00Z", 1), make_row(rng, "new", HOURS[0], 1))
        await listed(one, "2024-01-01", "gpt-5", "gone", "used-later", "o4-mini")
        with sink(one, tmp_path) as running:
            await caught_up(one)
            await until(lambda: "gone" in one.entities(MODEL), "OpenAI's models are in Port")
            await listed(one, "2024-01-09", "gpt-5")
            await until(
                lambda: one.entities(MODEL)["gone"]["properties"].get("unlisted_since") == "2024-01-09T14:00:00Z",
                "a model that is not listed any more is marked",
            )
            await until(running.idle, "so are the others")
            assert {name: found["properties"]["listed"] for name, found in one.entities(MODEL).items()} == {
                name: name == "gpt-5" for name in one.entities(MODEL)
            }
            later = make_row(rng, "later", HOURS[0], 1)
            later["buckets"][0]["model"] = "used-later"  # its entity does not change by that, and is not sent again
            await one.rows(later)
            await until(lambda: "codex-7f3a:later" in one.entities(SESSION), "a model is used that is not listed")
            assert await running.stop() == 0
        with sink(one, tmp_path, TALLYSTREAM_PORT_RETENTION="P365D"):
            kept = {"codex-7f3a:new", "codex-7f3a:later"}
            await until(lambda: one.entities(SESSION).keys() == kept, "the old one is deleted")
            await until(lambda: "gone" not in one.entities(MODEL), "so is the model that nobody uses")
            used = {name for found in one.entities(SESSION).values() for name in found["relations"]["models"]}
            assert one.entities(MODEL).keys() >= {"gpt-5", *used}
        with sink(one, tmp_path, TALLYSTREAM_PORT_RETENTION="P365D") as running:
            await until(lambda: running.metric("tallystream_sink_sweeps_total"), "everything was compared")
            await one.rows(make_row(rng, "newer", HOURS[0], 1))
            await until(lambda: "codex-7f3a:newer" in one.entities(SESSION), "it goes on")
            assert "codex-7f3a:old" not in one.entities(SESSION)
            await listed(one, "2024-01-10", "gpt-5")
            await one.rows(make_row(rng, "newest", HOURS[0], 1))
            await until(lambda: "codex-7f3a:newest" in one.entities(SESSION), "it goes on")
            assert "gone" not in one.entities(MODEL)
