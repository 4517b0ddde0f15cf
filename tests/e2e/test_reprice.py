"""From a wrong price to a right table: the bill says so, `prices check` prints the correction, `reprice` applies it."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from tests.e2e.test_bills import post, sandbox
from tests.support import worked_bills as worked
from tests.support.product import Product, product
from tests.support.waiting import eventually

from tallystream.sandbox.billed import Bill, OpenAIBill

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
MODEL, DATED, OTHER = "gpt-5.4-mini", "gpt-5.4-mini-2026-03-17", "gpt-5-codex"
TABLE = "select sum(requests) as requests, sum(total_tokens) as tokens, sum(cost_usd) as cost from session_hours"


def estimate(running: Product) -> dict[str, str | None]:
    """Return the reconciled day: bill, estimate and difference."""
    rows = running.json("reconcile", "--since", "3d")["rows"]
    found = [one for one in rows if one["provider"] == "openai" and one["causes"] is not None]
    return {name: found[0][name] for name in ("bill_usd", "estimate_usd", "difference_usd")} if found else {}


def test_a_wrong_price_is_corrected_by_what_prices_check_prints(tmp_path: Path) -> None:
    day = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    counts = {"input_uncached": 50_000, "output": 10_000}
    seen = [
        worked.SeenResponse(f"{day}T{9 + n % 5:02}:00:00Z", model, None, counts, session=f"s{n}")
        for model in (DATED, OTHER)
        for n in range(20)
    ]
    # The book says $0.75 a million of input tokens; everything else is billed as it says.
    costs = worked.openai_costs(
        day,
        (f"{MODEL}, input", "0.78", 1_000_000),
        (f"{MODEL}, output", "0.90", 200_000),
        (f"{OTHER}, input", "1.25", 1_000_000),
        (f"{OTHER}, output", "2.00", 200_000),
    )
    none = tmp_path / "prices.toml"
    none.write_text("")
    mend = tmp_path / "mend.toml"
    bill = Bill(openai=OpenAIBill(costs=costs, keys={"proj_a": ["key_a"]}))
    with sandbox(bill, none) as (_, everything):
        environment = {name: value for name, value in everything.items() if "_PORT_" not in name}  # no sink is needed
        with product(tmp_path / "data", environment) as running:
            post(running.json("connections", "create", "codex")["logs_url"], worked.telemetry(seen, anthropic=False))
            running.cli("wait", "--caught-up", "--timeout", "180")
            wanted = {"bill_usd": "4.93", "estimate_usd": "4.9", "difference_usd": "0.03"}
            eventually(lambda: estimate(running) == wanted, "the day is reconciled")
            said = running.cli("prices", "check", code=4)
            assert f"{MODEL} input uncached: the book is 3.8% low" in " ".join(said.split())
            mend.write_text(said.partition("(docs/pricing.md):\n\n")[2])
            before = {"requests": 40, "tokens": 40 * sum(counts.values()), "cost": "4.9"}
            eventually(lambda: running.sql(TABLE) == [before], lambda: f"the ledger has all: {running.sql(TABLE)}")
            shown = running.json("reprice", "--prices", str(mend))
            assert (shown["total"]["difference_usd"], shown["total"]["requests"]) == ("0.03", 40)
        environment |= {"TALLYSTREAM_PRICES": str(mend)}
        with product(tmp_path / "data", environment) as running:
            said = running.cli("reprice", "--prices", str(mend), "--apply", "--yes")
            assert "cost $4.9 before and $4.93 now, with the same requests and tokens" in " ".join(said.split())
            running.cli("wait", "--caught-up", "--timeout", "180")
            wanted = {"bill_usd": "4.93", "estimate_usd": "4.93", "difference_usd": "0"}
            eventually(lambda: estimate(running) == wanted, "the statement follows")
            assert "the book is right" in running.cli("prices", "check")

            # The ledger, the tables and the files for finance have the same, to the last digit.
            eventually(lambda: running.sql(TABLE) == [before | {"cost": "4.93"}], "the ledger follows")
            rows = running.json("cost", "models")["rows"]
            assert {(row["model"], row["cost_usd"], row["requests"]) for row in rows} == {
                (DATED, "1.68", 20), (OTHER, "3.25", 20),
            }  # fmt: skip
            assert len({row["book"] for row in rows}) == 2, "what costs the same by both books is not touched"
            running.cli("export", "--format", "focus", "--basis", "estimate", "--out", str(tmp_path / "focus"))
            lines = [
                one
                for path in (tmp_path / "focus").glob("day=*/focus.csv")
                for one in csv.DictReader(path.read_text().splitlines())
            ]
            assert sum(Decimal(one["BilledCost"]) for one in lines) == Decimal("4.93")
            for one in lines:
                if one["x_Model"] == DATED:
                    assert Decimal(one["ListUnitPrice"]) * Decimal(one["PricingQuantity"]) == Decimal(one["ListCost"])
            assert (
                json.loads(running.cli("reprice", "--prices", str(mend), "--apply", "--yes", "--json"))["corrections"]
                == 0
            )
