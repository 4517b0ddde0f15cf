"""Each table of a page has a file of its own, and the API's document names it."""

from __future__ import annotations

import csv
import io
from typing import get_args

import pytest
from pydantic import BaseModel

from tallystream.console import bills, models, overview, params
from tallystream.console.facts import facts_of
from tallystream.console.tables import tables, to_csv
from tallystream.schemas.status import GatewayStatus, PartitionStatus, WorkerStatus

AT = "2026-11-21T14:00:00Z"
SPENT = models.Totals(requests=2, total_tokens=5, unpriced_requests=0, cost_usd="0.5")
PAGE = overview.Overview(
    as_of=AT, range="today", periods=[], burn_usd_per_hour=None,
    hours=[overview.HourPoint(hour=AT, hour_before=AT, cost_usd="1", day_before_usd=None, requests=3)],
    models=[overview.Share(name="=m", totals=SPENT)], teams=[], agents=[], connections=[], clients=[],
)  # fmt: skip
HEALTH = models.DeploymentHealth(
    as_of=AT, components=[], checks=[], ledger={},
    findings=[models.FindingModel(check="disk", finding="is full", next_step="make room")],
)  # fmt: skip
LETTERS = models.DeadLetterPage(as_of=AT, reasons=[], rows=[], next=None)
CONNECTIONS = models.ConnectionList(as_of=AT, connections=[], openai=False, billing=[])
BILLS = bills.BillDays(
    as_of=AT, headline=None, bill_usd="0", estimate_usd="0", difference_usd="0", causes=[], notes=[], days=[],
    more=False,
)  # fmt: skip


def read(answer: BaseModel, name: str | None) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(answer, name), newline="")))


def test_each_table_of_an_answer_is_a_file() -> None:
    assert [one["requests"] for one in read(PAGE, "hours")] == ["3"]
    (share,) = read(PAGE, None)
    assert (share["by"], share["name"], share["cost_usd"]) == ("model", "'=m", "0.5")
    assert read(HEALTH, None) == []
    assert read(HEALTH, "findings") == [{"check": "disk", "finding": "is full", "next_step": "make room"}]


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        (PAGE, params.OverviewParams), (HEALTH, params.HealthParams), (LETTERS, params.DeadLetterParams),
        (CONNECTIONS, params.ConnectionsParams), (BILLS, params.BillParams),
    ],
)  # fmt: skip
def test_the_parameter_names_the_tables_of_the_answer(answer: BaseModel, asked: type[BaseModel]) -> None:
    field = asked.model_fields["table"]
    assert set(get_args(field.annotation)) == set(tables(answer))
    assert field.default == next(iter(tables(answer)))


def test_health_tells_of_spool_and_lag() -> None:
    gateway = GatewayStatus(
        requests_in_progress=0, quarantine_requests=0, quarantine_bytes=0, spool_messages=1200, spool_bytes=5000,
        spool_max_bytes=10**9, spool_oldest_age_seconds=61.0, kafka_live=False, connections=1,
    )  # fmt: skip
    assert facts_of(gateway) == {
        "spool": "1,200 messages, 5,000 bytes, the oldest 61 s old",
        "Kafka": "does not answer",
    }
    state: list[PartitionStatus] = [
        PartitionStatus(partition=0, expected=4, applied=4, end=9),
        PartitionStatus(partition=1, expected=2, applied=2, end=2),
    ]
    worker = WorkerStatus(book="b", rebalances=1, recovering=0, partitions=state)
    assert facts_of(worker)["lag"] == "5 messages"
    assert facts_of(None) == {}
