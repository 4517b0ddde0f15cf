"""The worked examples through all processes: agents' telemetry and providers' bills, exact to the last digit.

OTLP -> gateway -> worker -> Kafka -+
                                    +-> reconciliation.days -> `reconcile`, `prices check`, `export`, the console, Port
sandbox -> poller ---------> Kafka -+
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support import worked_bills as worked
from tests.support.product import Product, product
from tests.support.stand_ins import urls_of
from tests.support.waiting import ANSWER, eventually

from tallystream.sandbox.billed import Bill, OpenAIBill
from tallystream.streams.process import tcp_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@contextmanager
def sandbox(bill: Bill, prices: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve the bill; provide the sandbox's URL and the settings for it."""
    (prices.parent / "bill.json").write_text(bill.model_dump_json())
    argv = [sys.executable, "-m", "tallystream", "sandbox", "--port", str(tcp_ports.pick()), "--json",
            "--bill", str(prices.parent / "bill.json")]  # fmt: skip
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        urls = urls_of(process)
        yield (
            urls["url"],
            {
                "TALLYSTREAM_OPENAI_BASE_URL": urls["openai"],
                "TALLYSTREAM_OPENAI_ADMIN_TOKEN": "sk-sandbox",
                "TALLYSTREAM_OPENAI_INTERVAL": "PT5S",
                "TALLYSTREAM_ANTHROPIC_BASE_URL": urls["anthropic"],
                "TALLYSTREAM_ANTHROPIC_ADMIN_TOKEN": "sk-sandbox",
                "TALLYSTREAM_PRICES": str(prices),
                "TALLYSTREAM_PORT_BASE_URL": urls["port"],
                "TALLYSTREAM_PORT_CLIENT_ID": "sandbox",
                "TALLYSTREAM_PORT_CLIENT_SECRET": "sandbox",
            },
        )
    finally:
        process.terminate()
        process.communicate(timeout=ANSWER)


def post(url: str, body: bytes, content_type: str = "application/x-protobuf") -> None:
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    with urllib.request.urlopen(request, timeout=ANSWER) as response:
        assert response.status == 200


def causes(one: dict[str, Any]) -> dict[str, Decimal]:
    return {name: Decimal(value) for name, value in one["causes"].items() if value != "0"}


def statements(running: Product) -> dict[tuple[str, str], dict[str, Any]]:
    rows = running.json("reconcile", "--cells")["rows"]
    return {(one["provider"], one["day"]): one for one in rows}


def bills_of(running: Product) -> dict[str, Any]:
    """Return the console's page of bills, as its API has it, once the ledger holds the newest statements."""
    link = running.json("console", "link")["url"]
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    base = link.partition("/login")[0]

    def read(path: str) -> str:
        with opener.open(base + path, timeout=ANSWER) as response:
            return str(response.read().decode())

    def listens() -> bool:
        try:
            return bool(read("/static/icon.svg"))
        except urllib.error.URLError:
            return False

    eventually(listens, "the console answers")
    opener.open(link, timeout=ANSWER).close()

    eventually(lambda: "restated by +$0.14" in read("/bills"), "the console shows the restatement")
    table = list(csv.DictReader(read("/api/v1/bills?format=csv").splitlines()))
    document: dict[str, Any] = json.loads(read("/api/v1/bills"))
    assert [one["causes.discount"] for one in table if one["causes.discount"]] == [
        one["causes"]["discount"] for one in document["days"] if "discount" in one["causes"]
    ]
    return document


def port_bills(stand_in: str) -> dict[str, dict[str, Any]]:
    with urllib.request.urlopen(f"{stand_in}/sandbox/port/entities", timeout=ANSWER) as response:
        found = json.load(response, parse_float=Decimal)
    return {one["identifier"]: one["properties"] for one in found if one["blueprint"] == "coding_agent_bill_day"}


def test_worked_examples_are_exact_through_all_processes(tmp_path: Path) -> None:
    today = datetime.now(UTC)
    first, second, third = (f"{today - timedelta(days=ago):%Y-%m-%d}" for ago in (4, 3, 1))
    (tmp_path / "prices.toml").write_text(worked.PRICES)

    def bill(*, behind: bool) -> Bill:
        contract, midnight = worked.contract(third), worked.midnight(first, second, behind=behind)
        openai = OpenAIBill(costs=midnight.costs + contract.costs, usage=midnight.usage, keys=contract.keys)
        return Bill(openai=openai, anthropic=worked.analytics(third))

    with (
        sandbox(bill(behind=True), tmp_path / "prices.toml") as (stand_in, environment),
        product(tmp_path / "data", environment) as running,
    ):
        seen = [*worked.midnight_seen(first, second), *worked.contract_seen(third), *worked.analytics_seen(third)]
        for client, anthropic in (("codex", False), ("claude", True)):
            logs = running.json("connections", "create", client)["logs_url"]
            post(logs, worked.telemetry(seen, anthropic=anthropic))
        running.cli("wait", "--caught-up", "--timeout", "180")

        wanted_sums = {
            ("openai", first): ("4.5", "4.806", "-0.306"),
            ("openai", second): ("3.6", "3.87", "-0.27"),
            ("openai", third): ("125.45", "117", "8.45"),
            ("anthropic", third): ("77.95123457", "67.4962345678", "10.4550000022"),
        }
        found: dict[tuple[str, str], dict[str, Any]] = {}

        def sums() -> dict[tuple[str, str], tuple[str, str, str]]:
            found.update(statements(running))
            return {
                place: (one["bill_usd"], one["estimate_usd"], one["difference_usd"])
                for place, one in found.items()
                if one["causes"] is not None
            }

        eventually(lambda: sums() == wanted_sums, lambda: f"all is reconciled: {sums()}")
        assert causes(found["openai", third]) == worked.CONTRACT
        assert found["openai", third]["discount_ratio"] == "0.9"
        assert causes(found["anthropic", third]) == worked.ANALYTICS
        assert {cell["model"]: causes(cell) for cell in found["openai", first]["cells"]} == worked.MIDNIGHT
        assert causes(found["openai", second]) == worked.AFTER

        words = running.cli("reconcile", "--since", third, "--explain")
        assert "the providers billed $203.40, our estimate is $184.50: the bill is $18.91 more" in words
        assert "openai charges every line at one ratio to the price book: 10% off." in words
        wrong = json.loads(running.cli("prices", "check", "--json", code=4))
        assert {line["model"] for line in wrong["rows"] if not line["right"]} == {worked.COMING}

        # The costs catch up with the usage: the lag is gone, and the change is a statement of its own.
        post(f"{stand_in}/sandbox/bill", bill(behind=False).model_dump_json().encode(), "application/json")
        eventually(lambda: statements(running)["openai", second]["restated"] is not None, "the restatement is seen")
        restated = statements(running)["openai", second]
        assert (restated["restated"]["change_usd"], restated["restated"]["causes"]["lag"]) == ("0.135", "0.135")
        assert causes(restated) == {name: value for name, value in worked.AFTER.items() if name != "lag"}

        # The console says the same, from the ledger; its CSV holds numbers, negative ones too.
        page = bills_of(running)
        assert (page["bill_usd"], page["difference_usd"]) == ("211.63623457", "18.4640000022")
        assert sum(Decimal(one["usd"]) for one in page["causes"]) == Decimal(page["difference_usd"])
        assert page["headline"].endswith("the bill is $18.46 more (+9.6%).")
        assert {(one["provider"], one["day"]): one["restated_usd"] for one in page["days"] if one["restated_usd"]} == {
            ("openai", second): "0.135"
        }
        adding = "select sum(usd) as usd from reconciled_causes"
        assert running.sql(adding) == [{"usd": "18.4640000022"}]

        # Once all is caught up, Port has the same of each provider's days.
        running.cli("wait", "--caught-up", "--timeout", "180")
        held = port_bills(stand_in)
        wanted = {f"{provider}-{day}": one for (provider, day), one in statements(running).items() if one["causes"]}
        assert held.keys() == wanted.keys()
        for name, properties in held.items():
            assert properties["bill_exact"] == wanted[name]["bill_usd"]
            assert properties["difference_exact"] == wanted[name]["difference_usd"]
            parts = {cause: Decimal(str(properties[f"{cause}_usd"])) for cause in wanted[name]["causes"]}
            assert parts == {cause: Decimal(usd) for cause, usd in wanted[name]["causes"].items()}
        assert "10% off" in held[f"openai-{third}"]["explanation"]

        # What finance gets adds up to the bill, and to the tables without one.
        for basis, total in (("reconciled", "211.63623457"), ("estimate", "193.1722345678")):
            out = tmp_path / basis
            running.cli("export", "--format", "focus", "--basis", basis, "--out", str(out))
            rows = [
                one for path in out.glob("day=*/focus.csv") for one in csv.DictReader(path.read_text().splitlines())
            ]
            assert sum(Decimal(one["BilledCost"]) for one in rows) == Decimal(total)
            # What telemetry has is charged to its session; the rest of the bill to nobody.
            charged = [
                Decimal(one["BilledCost"]) for one in rows if one["x_Model"] == worked.HAIKU and one["x_SessionId"]
            ]
            assert sum(charged) == Decimal("0.00123457" if basis == "reconciled" else "0.0012345678")
