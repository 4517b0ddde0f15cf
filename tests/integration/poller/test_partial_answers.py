"""Incomplete or unusable answers: the days keep their figures, and the reason is reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web
from tests.support.openai_rig import DAY, TODAY, Rig, day, only, rig
from tests.support.waiting import until

from tallystream.agents.openai_days import OpenAIDays
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.openai import BilledDay
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka
COSTS, LEGACY = "/organization/costs", "/usage"
COMPLETIONS, EMBEDDINGS = "/organization/usage/completions", "/organization/usage/embeddings"


@dataclass
class Following:
    """A running agent of the days: its position, and how many days keep their earlier figures."""

    one: Rig
    offset: int = 0
    held: dict[str, int] = field(default_factory=dict)

    async def days(self) -> dict[str, dict[str, Any]]:
        """Return the published row of each day once the agent has seen every record."""
        end = len(await self.one.messages(self.one.topics.openai_records.name))
        await until(lambda: self.offset >= end, lambda: f"read up to {self.offset} of {end}")
        found: dict[str, dict[str, Any]] = {}
        newest: dict[bytes, BilledDay] = {}
        for key, value in await self.one.messages(self.one.topics.openai_days.name):
            newest[key] = BilledDay.model_validate_json(value)
        for row in newest.values():
            said = found.setdefault(row.day, {})
            for billed in row.billed:
                said.setdefault(billed.resource, []).append(billed.usd)
            for used in row.used:
                asked = used.counts.get("num_model_requests", used.counts.get("n_requests", 0))
                said[used.resource] = said.get(used.resource, 0) + asked
        return found

    async def letters(self) -> list[DeadLetter]:
        letters = await self.one.messages(self.one.topics.deadletters.name)
        return [DeadLetter.model_validate_json(value) for _, value in letters]


@asynccontextmanager
async def following(one: Rig) -> AsyncIterator[Following]:
    seen = Following(one)
    agent = OpenAIDays(
        one.kafka, one.topics, lambda offset: setattr(seen, "offset", offset), lambda held: seen.held.update(held)
    )
    task = asyncio.create_task(agent.run())
    try:
        yield seen
    finally:
        await cancel(task)


async def test_day_with_only_embeddings_is_not_published(kafka: KafkaSettings, prefix: str) -> None:
    async with rig(kafka, prefix) as one, following(one) as seen:
        await one.poll(resources=only(LEGACY))
        before = await seen.days()
        assert before
        one.order(match="usage/completions", kind="status", status=500)
        half = await one.poll(resources=only(LEGACY, COMPLETIONS, EMBEDDINGS))
        assert set(half.failures) == {COMPLETIONS}
        assert await seen.days() == before
        await until(lambda: seen.held["incomplete"] == 31, lambda: str(seen.held))
        one.sandbox.faults.clear()
        assert not (await one.poll(resources=only(LEGACY, COMPLETIONS, EMBEDDINGS))).failures
        after = await seen.days()
        assert seen.held == {"incomplete": 0, "invalid": 0}
        assert {name: said[LEGACY] for name, said in after.items()} == {
            name: said[LEGACY] for name, said in before.items()
        }
        assert all(COMPLETIONS in said for said in after.values())


def bucket(offset: int, *amounts: object) -> dict[str, Any]:
    start = (TODAY + offset) * DAY
    results = [
        {"object": "organization.costs.result", "amount": amount, "line_item": "gpt-5-2025-08-07, input"}
        for amount in amounts
    ]
    return {"object": "bucket", "start_time": start, "end_time": start + DAY, "results": results}


def usd(value: object, currency: str = "usd") -> dict[str, Any]:
    return {"value": value, "currency": currency}


async def test_amounts_in_any_format_are_exact_or_ignored(kafka: KafkaSettings, prefix: str) -> None:
    answer: list[dict[str, Any]] = []

    async def costs(_: web.Request) -> web.Response:
        return web.json_response({"object": "page", "data": answer, "has_more": False, "next_page": None})

    app = web.Application()
    app.router.add_get("/v1/organization/costs", costs)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        async with rig(kafka, prefix, only(COSTS)) as one, following(one) as seen:
            one.config = replace(one.config, client=replace(one.config.client, base_url=url))
            answer[:] = [bucket(-2, usd("12.50"), usd(6e-05), usd("-1.25")), bucket(-1, usd(0.1), usd(0.2))]
            assert (await one.poll()).failures == {}
            mixed = await seen.days()
            assert mixed == {day(-2): {COSTS: ["11.25006"]}, day(-1): {COSTS: ["0.3"]}}

            answer[:] = [bucket(-2, usd("1.5"), None), bucket(-1, usd(3))]
            assert (await one.poll()).failures == {}
            assert await seen.days() == mixed | {day(-1): {COSTS: ["3"]}}
            assert seen.held == {"invalid": 1, "incomplete": 0}
            (letter,) = await seen.letters()
            assert (letter.reason, letter.record["day"]) == (Reason.INVALID_BILL, day(-2))
            assert "the day keeps its previous figures" in letter.detail

            answer[:] = [bucket(-2, usd("1.5"), usd(2, "eur"))]
            await one.poll()
            assert await seen.days() == mixed | {day(-1): {COSTS: ["3"]}}
            await until(lambda: _count(seen, 2), "a second letter")
            assert "1.5 usd" in (await seen.letters())[-1].detail
            assert "2 eur" in (await seen.letters())[-1].detail

            answer[:] = [bucket(-2, usd("1.5"))]
            await one.poll()
            assert await seen.days() == {day(-2): {COSTS: ["1.5"]}, day(-1): {COSTS: ["3"]}}
            assert seen.held == {"invalid": 0, "incomplete": 0}
    finally:
        await runner.cleanup()


async def _count(seen: Following, letters: int) -> bool:
    return len(await seen.letters()) == letters
