"""`reconcile`, `accounts` and `prices` on the data of a poll of the sandbox."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.bill_rig import BillRig, bill_rig
from tests.support.bills import at, book, row

from tallystream.sandbox.billed import Bill, OpenAIBill, OpenAICost, OpenAIUse
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka
DAY = "2026-11-21"
NOW = at("2026-11-24T12:00:00Z").timestamp()
PRICES = '[[price]]\nprovider = "openai"\nmodel = "gpt-9"\ninput = "5"\noutput = "30"\n'


async def tallystream(one: BillRig, tmp_path: Path, *args: str, code: int = 0) -> str:
    """Run a command; its stdout, once it ended with `code`."""
    environment = os.environ | {
        "TALLYSTREAM_PREFIX": one.topics.prefix,
        "TALLYSTREAM_PRICES": str(tmp_path / "prices.toml"),
        "TALLYSTREAM_DATA_DIR": str(tmp_path / "data"),
    }
    where = () if args[:2] == ("prices", "show") else ("--kafka", one.kafka.bootstrap)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tallystream", *args, *where, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert process.returncode == code, err.decode()
    return out.decode()


def bill() -> Bill:
    def cost(item: str, value: str, tokens: int | None) -> OpenAICost:
        return OpenAICost(
            day=DAY, project_id="p1", api_key_id="k1", line_item=item, value=value, quantity=tokens,
            quantity_unit=None if tokens is None else "tokens",
        )  # fmt: skip

    usage = [
        OpenAIUse(hour=f"{DAY}T{hour:02}:00:00Z", project_id="p1", api_key_id="k1", model="gpt-9", input_tokens=200_000)
        for hour in range(5, 10)
    ]
    costs = [cost("gpt-9, input", "5.20", 1_000_000), cost("gpt-9, output", "30.00", 1_000_000)]
    return Bill(openai=OpenAIBill(costs=[*costs, cost("=HYPERLINK()", "1.25", None)], usage=usage, keys={"p1": ["k1"]}))


async def test_reconcile_prints_a_day_in_every_format(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with bill_rig(kafka, prefix, bill(), book(tmp_path, PRICES), NOW) as one:
        await one.see(
            row("codex-1", f"{DAY}T{hour:02}:00:00Z", "gpt-9", "0.9", session=str(hour), input_uncached=180_000)
            for hour in range(5, 10)
        )
        await one.poll()
        await one.statements()

        document: dict[str, Any] = json.loads(await tallystream(one, tmp_path, "reconcile", "--json", "--cells"))
        (day,) = document["rows"]
        assert document["complete"] is True
        assert document["total"]["bill_usd"] == day["bill_usd"] == "36.45"
        assert (day["estimate_usd"], day["difference_usd"], day["state"]) == ("4.5", "31.95", "provisional")
        assert sum(map(Decimal, day["causes"].values())) == Decimal("31.95")
        assert {cell["model"] for cell in day["cells"]} == {"gpt-9", None}

        models = json.loads(await tallystream(one, tmp_path, "reconcile", "--by", "model", "--json"))["rows"]
        assert [(model["model"], model["bill_usd"]) for model in models] == [
            ("gpt-9", "35.2"),
            ("=HYPERLINK()", "1.25"),
        ]

        table = list(
            csv.DictReader(io.StringIO(await tallystream(one, tmp_path, "reconcile", "--by", "model", "--csv")))
        )
        assert [line["model"] for line in table] == ["gpt-9", "'=HYPERLINK()"], "no formula for a spreadsheet"
        assert sum(Decimal(line["difference_usd"]) for line in table) == Decimal("31.95")

        assert (
            json.loads(await tallystream(one, tmp_path, "reconcile", "--since", "2026-11-22", "--json"))["rows"] == []
        )
        said = await tallystream(one, tmp_path, "reconcile", "--explain")
        assert "the providers billed $36.45, our estimate is $4.50" in said
        assert "provisional" in await tallystream(one, tmp_path, "reconcile")

        checked = json.loads(await tallystream(one, tmp_path, "prices", "check", "--since", DAY, "--json", code=4))
        wrong = [line for line in checked["rows"] if not line["right"]]
        assert [(line["kind"], line["charged_price_usd"], line["book_price_usd"]) for line in wrong] == [
            ("input_uncached", "5.2", "5")
        ]
        assert 'input = "5.2"' in checked["overlay"]
        shown = json.loads(await tallystream(one, tmp_path, "prices", "show", "gpt-9", "--at", DAY, "--json"))
        assert shown["rates"][0]["output"] == "30"

        (suggested,) = json.loads(await tallystream(one, tmp_path, "accounts", "suggest", "--json"))["suggestions"]
        assert (suggested["connection_id"], suggested["api_key_id"]) == ("codex-1", "k1")
        await tallystream(one, tmp_path, "accounts", "map", "codex-1", "--key", "k1", "--provider", "openai")
        links = json.loads(await tallystream(one, tmp_path, "accounts", "list", "--json"))["links"]
        assert [(link["connection_id"], link["api_key_id"]) for link in links] == [("codex-1", "k1")]
        await one.statements()
        rows = json.loads(await tallystream(one, tmp_path, "reconcile", "--json"))["rows"]
        assert [(said["scope"], said["bill_usd"]) for said in rows] == [("codex-1", "36.45")]
        await tallystream(one, tmp_path, "accounts", "unmap", "codex-1")
        await tallystream(one, tmp_path, "accounts", "unmap", "codex-1", code=2)
        await tallystream(one, tmp_path, "accounts", "map", "codex-1", "--key", "k1", "--plan", code=2)
