"""OpenAI's data from the poller to Port: the entities must equal the sums of the sandbox's data."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.support.port_page import PASTED
from tests.support.port_rig import Rig, differences, rig, sink
from tests.support.waiting import until

from tallystream.agents.openai_days import OpenAIDays
from tallystream.agents.port_sink.mapping.identifiers import encode
from tallystream.sandbox import Fault
from tallystream.sandbox.openai_data import UsageCell
from tallystream.schemas.openai import DAY_S, BilledDay, OpenAIRecord, at
from tallystream.streams.kafka.reader import latest
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.poller.client import OpenAIClientConfig
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.credentials import ApiKey, ApiKeys
from tallystream.streams.poller.poll_run import PollResult
from tallystream.streams.poller.resources import builtin
from tallystream.streams.poller.service import Poller

pytestmark = pytest.mark.kafka
ASKS = {"completions", "embeddings", "moderations", "images", "audio_speeches", "audio_transcriptions"}
DAYS = 3
RESOURCES = [resource for resource in builtin() if resource.key != "anthropic"]
"""The resources of a deployment that has only an OpenAI key."""


async def poll(one: Rig) -> PollResult:
    """Poll everything once, for a few days back."""
    days = timedelta(days=DAYS - 1)
    config = PollerConfig(
        kafka=one.kafka,
        topics=one.topics,
        resources=tuple(
            resource.model_copy(update={"lookback": days, "restated_for": min(days, resource.restated_for)})
            for resource in RESOURCES
        ),
        tokens=ApiKeys({"api": ApiKey("sk-sandbox-key")}),
        client=OpenAIClientConfig(base_url=f"{one.sandbox.url}/openai/v1", attempts=1),
        session_timeout=10.0,
    )
    return await Poller(config, CollectorRegistry()).once()


def cells(one: Rig) -> Iterator[tuple[str, UsageCell]]:
    """Yield the usage of the polled days, with the day."""
    now = one.sandbox.now()
    today = int(now) // DAY_S
    for day in range(today - DAYS + 1, today + 1):
        for cell in one.sandbox.source.day(day):
            if cell.at < now:
                yield f"{at(day * DAY_S):%Y-%m-%d}", cell


def expected(one: Rig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the daily entities and those of models and days."""
    days: dict[str, dict[str, Any]] = {}
    models: dict[tuple[str, str], dict[str, Any]] = {}
    for day, cell in cells(one):
        # a day on which nothing was asked yet has no number of requests, but it may have costs
        sums = days.setdefault(day, {"requests": None, "tokens": None, "cost": Decimal(0)})
        sums["cost"] += sum(cell.costs.values(), Decimal(0))
        if cell.kind in ASKS:
            requests = cell.counts["num_model_requests"]
            tokens = cell.counts.get("input_tokens", 0) + cell.counts.get("output_tokens", 0)
            sums["requests"] = (sums["requests"] or 0) + requests
            sums["tokens"] = (sums["tokens"] or 0) + tokens
            if cell.model:
                of_model = models.setdefault((cell.model, day), {"requests": 0, "tokens": 0})
                of_model["requests"] += requests
                of_model["tokens"] += tokens
    daily = {
        f"daily-{day}": {
            "title": f"OpenAI Usage {day}",
            "properties": {"date": f"{day}T00:00:00Z", "total_requests": sums["requests"],
                           "total_tokens": sums["tokens"], "total_cost": sums["cost"]},
        }
        for day, sums in days.items()
    }  # fmt: skip
    of_models = {
        encode(f"{model}-{day}"): {
            "title": f"{model} usage",
            "properties": {"model": model, "date": f"{day}T00:00:00Z", "requests": sums["requests"],
                           "tokens": sums["tokens"]},
        }
        for (model, day), sums in models.items()
    }  # fmt: skip
    return daily, of_models


def printed(one: Rig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the intended result of the page's mappings, without requests, which the dashboard does not report."""
    daily, _ = expected(one)
    for entity in daily.values():
        entity["properties"] |= {"total_requests": 0, "total_tokens": 0}
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for day, cell in cells(one):
        if cell.kind in ("completions", "embeddings"):
            operation = "" if cell.kind == "completions" else "-embedding"
            name = encode(f"{cell.model}-{cell.at // 300 * 300}-{cell.api_key_id}-{cell.project_id}{operation}")
            row = rows.setdefault((name, cell.model, day), {"requests": 0, "tokens": 0})
            row["requests"] += cell.counts["num_model_requests"]
            row["tokens"] += cell.counts["input_tokens"] + cell.counts.get("output_tokens", 0)
    usage = {
        name: {
            "title": f"{model} usage",
            "properties": {"model": model, "date": f"{day}T00:00:00Z", **row},
        }
        for (name, model, day), row in rows.items()
    }
    return daily, usage


async def test_openai_data_reaches_port_with_the_default_and_documented_mappings(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    async with rig(kafka, prefix, now=time.time()) as one:
        agent = asyncio.create_task(OpenAIDays(kafka, one.topics).run())
        try:
            assert not (await poll(one)).failures
            daily, models = expected(one)
            with sink(one, tmp_path) as running:

                def wrong() -> dict[str, Any]:
                    return differences(daily, one.entities("openai_daily_usage")) | differences(
                        models, one.entities("openai_model_usage")
                    )

                await until(lambda: not wrong(), lambda: f"differs: {wrong()}")
                names = {encode(name) for name in one.sandbox.source.models()}
                await until(lambda: one.entities("openai_model").keys() == names, "all models are there")
                assert any("=20" in name for name in names)

                # if OpenAI does not answer for a day, nothing is changed, deleted or set to zero
                await until(running.idle, "everything else is there, too")
                writes = one.sandbox.store.writes
                one.sandbox.faults.add(Fault(match="^/openai", kind="status", status=500))
                assert len((await poll(one)).failures) == len(RESOURCES)
                one.sandbox.faults.clear()
                assert one.sandbox.store.writes == writes
                assert not wrong()

                # a day that OpenAI restates is restated in Port
                yesterday = int(one.sandbox.now()) // DAY_S - 1
                name = f"daily-{at(yesterday * DAY_S):%Y-%m-%d}"
                one.sandbox.source.restate(yesterday)  # type: ignore[union-attr]  # it is seeded
                before = one.entities("openai_daily_usage")[name]["properties"]["total_requests"]
                await poll(one)
                daily, models = expected(one)
                assert daily[name]["properties"]["total_requests"] > before
                await until(lambda: not wrong(), lambda: f"differs: {wrong()}")
                assert await running.stop() == 0
            assert not await one.letters()

            for row in (await latest(kafka, one.topics.openai_days.name)).values():
                BilledDay.model_validate_json(row)

            # the page's mappings, pasted one after another, on the same records
            mapping = tmp_path / "pasted.yaml"
            mapping.write_text(PASTED)
            for entities in ("openai_model_usage",):
                for name in list(one.entities(entities)):
                    one.sandbox.store.delete(entities, name, dependents=True)
            daily, models = printed(one)
            with sink(one, tmp_path, TALLYSTREAM_PORT_MAPPING=str(mapping)):
                await until(lambda: not wrong(), lambda: f"differs: {list(wrong().items())[:3]}")
                assert not await one.letters()

                # amounts that cannot be added up, and a record that cannot be read, leave their days as they are
                records = await latest(kafka, one.topics.openai_records.name)
                bills = sorted(key for key in records if b"billing" in key)
                nothing, half, unreadable = bills[-3:]
                for key, items in ((nothing, None), (half, [{"name": "x", "cost": 5}, {"name": "y", "cost": None}])):
                    bill = OpenAIRecord.model_validate_json(records[key])
                    bill = bill.model_copy(
                        update={"polled_at": bill.polled_at + timedelta(hours=1), "decimals": [],
                                "rows": [{**row, "line_items": items} for row in bill.rows]}
                    )  # fmt: skip
                    await one.append(one.topics.openai_records.name, key, bill.model_dump_json().encode())
                later = {"polled_at": "2100-01-01T00:00:00Z", "rows": "none"}
                await one.append(one.topics.openai_records.name, unreadable, later)

                async def letters() -> bool:
                    return {letter["record"].get("key") for letter in await one.letters()} >= {
                        key.decode() for key in (nothing, half, unreadable)
                    }

                await until(letters, "a dead letter for each")
                assert not wrong()
        finally:
            agent.cancel()
            with suppress(asyncio.CancelledError):
                await agent
