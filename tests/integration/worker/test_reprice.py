"""`tallystream reprice --apply` on real Kafka, under load, while the worker and the command itself are killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from asyncio.subprocess import PIPE
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.integration.worker.test_session_cost import add, counted_up_to_the_end, lines_of, send
from tests.support.usage import Event, Line, Truth, fleet, price
from tests.support.waiting import until
from tests.support.worker import SRC, Worker, newest, producing, read, worker

from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.money import to_pico, to_usd
from tallystream.schemas.rows import HourCost, SessionHourCost
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]
PRICES = """
[[price]]
provider = "openai"
model = "o3"
input = "1.5"
cache_read = "0.3"
output = "6"
  [[price.above]]
  input_tokens = 100000
  input = "2.25"
  cache_read = "0.7"
  output = "9.000001"

[[price]]
provider = "openai"
model = "house-model-9"
input = "0.25"
output = "1"
"""


def contract(happened: Event) -> Decimal | None:
    """Price a response by PRICES, and what they leave out by genai-prices."""
    if happened["model"] not in ("o3", "house-model-9") or happened.get("service_tier") not in (None, "default"):
        return price(happened)
    plain, cached, written = (happened[name] for name in ("input_uncached", "cache_read", "cache_write_5m"))
    plain_usd, cached_usd, out_usd = "0.25", "0.25", "1"
    if happened["model"] == "o3":
        large = plain + cached + written > 100_000
        plain_usd, cached_usd, out_usd = ("2.25", "0.7", "9.000001") if large else ("1.5", "0.3", "6")
    cost: Decimal = (
        (plain + written) * Decimal(plain_usd) + cached * Decimal(cached_usd) + happened["output"] * Decimal(out_usd)
    )
    return cost.scaleb(-6)


def cost_of(truth: Truth) -> Decimal:
    return sum((line.cost for line in truth.lines.values()), Decimal(0))


class Command:
    """`tallystream reprice --apply` in processes of their own."""

    def __init__(self, running: Worker, prices: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTREAM_")}
        own = {"PREFIX": running.topics.prefix, "PARTITIONS": str(running.topics.partitions), "PRICES": str(prices)}
        self._environment = {**kept, "PYTHONPATH": str(SRC), **{f"TALLYSTREAM_{k}": v for k, v in own.items()}}
        self._argv = ["reprice", "--prices", str(prices), "--apply"]
        self._argv += ["--kafka", running.kafka.bootstrap, "--data-dir", str(running.data_dir)]

    async def start(self, *options: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tallystream", *self._argv, *(options or ("--yes", "--json")),
            stdin=PIPE, stdout=PIPE, stderr=PIPE, env=self._environment,
        )  # fmt: skip

    async def run(self) -> dict[str, Any]:
        process = await self.start()
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        document: dict[str, Any] = json.loads(out)
        return document

    async def said(self, *options: str, answer: str = "") -> tuple[int | None, str]:
        """Return the exit code and all output."""
        process = await self.start(*options)
        out, err = await process.communicate(answer.encode())
        return process.returncode, (out + err).decode()


async def load(
    kafka: KafkaSettings, topics: Topics, messages: list[tuple[bytes, bytes]], done: Callable[[], bool]
) -> None:
    """Send one message after the other, and then copies of them until `done`."""
    async with producing(kafka) as producer:
        at = 0
        while at < len(messages) or not done():
            key, value = messages[at % len(messages)]
            await producer.send_and_wait(topics.usage.name, value, key=key)
            at += 1


async def test_applied_prices_are_exact_under_load_and_kills(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    topics, rng, now = Topics(prefix, 3), random.Random(21), datetime.now(UTC)
    await ensure(kafka, topics.all())
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    old, new, messages = Truth(), Truth(priced=contract), []
    for session, events in fleet(rng, 120, now):
        for truth in (old, new):
            truth.add(session, events, now)
        # Of clients with request ids, the state knows what each request cost; of the others it does not.
        client = "claude" if sum(session.session_id.encode()) % 2 else "codex"
        messages.append((session.key, orjson.dumps(orjson.loads(session.message(events)) | {"client": client})))
    half = len(messages) // 2
    assert cost_of(old) != cost_of(new)
    with worker(kafka, topics, tmp_path) as running:
        command, finished = Command(running, prices), asyncio.Event()
        running.start()
        running.ready()
        await send(kafka, topics, messages[:half])
        await counted_up_to_the_end(running)
        running.kill()
        running.start(TALLYSTREAM_PRICES=str(prices))
        running.ready()
        code, said = await command.said("--by", "team", answer="n\n")
        assert code == 1
        assert "Difference" in said
        assert "Correct 1" in said, "it asks for the number of session-hours"
        assert not running.metric("tallystream_worker_price_corrections_total"), "nothing is changed without consent"
        loading = asyncio.create_task(load(kafka, topics, messages[half:], finished.is_set))
        killed = await command.start()
        await until(lambda: running.metric("tallystream_worker_price_corrections_total"), "a correction is applied")
        running.kill()
        killed.kill()
        await killed.communicate()
        running.start(TALLYSTREAM_PRICES=str(prices))
        again = asyncio.create_task(command.run())
        running.ready()
        running.kill()
        running.start(TALLYSTREAM_PRICES=str(prices))
        await again
        finished.set()
        await loading
        await counted_up_to_the_end(running)
        last = await command.run()
        assert (await command.run())["corrections"] == 0, "a second time changes nothing"

        rows = await newest(kafka, topics.session_hour_rows.name)
        assert lines_of(rows) == new.lines, "rows and truth differ"
        hours: dict[tuple[str, str, str | None], Line] = defaultdict(Line)
        for row in (await newest(kafka, topics.hour_rows.name)).values():
            HourCost.model_validate(row, strict=True)
            add(hours[row["hour"], row["model"], row["team"]], row)
        assert hours == new.hours, "partials of the hours do not add up"
        for row in rows.values():
            SessionHourCost.model_validate(row, strict=True)
        assert Decimal(last["after"]["cost_usd"]) == cost_of(new)
        assert last["after"]["total_tokens"] == last["before"]["total_tokens"]
        assert not last["left"]
        standard = [b for row in rows.values() for b in row["buckets"] if b["service_tier"] in (None, "default")]
        assert {b["book"] for b in standard if b["model"] in ("o3", "house-model-9")} == {last["book"]}
        letters = [DeadLetter.model_validate_json(one.value) for one in await read(kafka, topics.deadletters.name)]
        assert {letter.reason for letter in letters} <= {Reason.REPRICE_REFUSED}
        assert running.stop() == 0

        none = tmp_path / "none.toml"
        none.write_text("")
        back = Command(running, none)
        code, said = await back.said("--yes", "--timeout", "2")
        assert code == 3
        assert "as soon as they run" in " ".join(said.split())
        running.start()
        assert (await back.run())["after"]["cost_usd"] == to_usd(to_pico(cost_of(old)))
        assert lines_of(await newest(kafka, topics.session_hour_rows.name)) == old.lines, "the way back"
        code, said = await back.said("--yes")
        assert (code, "Nothing to correct" in said) == (0, True)
        assert running.stop() == 0
