"""OpenAI's own numbers: sums of each day by resource, the models of one day, and whether a bill is polled."""

from __future__ import annotations

from pathlib import Path

from tests.support.ledger_rows import HOUR0, batches, bucket, row

from tallystream.agents.ledger.apply import Writer
from tallystream.agents.ledger.store.sqlite import SQLiteDatabase
from tallystream.console.build import Sight, connections, openai_days
from tallystream.console.tables import to_csv
from tallystream.schemas.hours import HOUR_NS, hour_iso
from tallystream.streams.identity import Identity
from tallystream.streams.kafka.topics import Topics

TOPICS = Topics("acme")
COSTS, LEGACY = "/organization/costs", "/dashboard/billing/usage"
TODAY, YESTERDAY = hour_iso(HOUR0)[:10], hour_iso(HOUR0 - 24)[:10]


def ledger(path: Path, polled_at: str) -> SQLiteDatabase:
    database = SQLiteDatabase(path)
    writer = Writer(database, TOPICS)
    writer.claim(Identity("cluster", "acme", {}))
    rows = [row("s1", HOUR0, [0, 1], [bucket("m1", 3 * 10**12)])]
    for batch in batches(TOPICS.session_hour_rows.name, rows, [1]):
        writer.apply([batch])
    billed = (
        (TODAY, "gpt-5", "proj_a", COSTS, "0.1"),
        (TODAY, "gpt-5", "proj_b", COSTS, "0.2000000000000000000001"),
        (TODAY, "gpt-5", "", LEGACY, "0.3"),
        (YESTERDAY, "tts-1", "proj_a", COSTS, "7"),
    )
    with database.writing():
        names = ("day", "model", "project_id", "resource", "usd", "polled_at")
        database.load("openai_billed", names, [(*one, polled_at) for one in billed])
    return database


def test_days_are_summed_by_resource_and_one_day_has_its_models(tmp_path: Path) -> None:
    database = ledger(tmp_path / "ledger.db", f"{TODAY}T00:00:00.000Z")
    sight = Sight(database, (HOUR0 + 1) * HOUR_NS)
    page = openai_days(sight)
    assert [(one.day, one.billed) for one in page.sums] == [
        (TODAY, {LEGACY: "0.3", COSTS: "0.3000000000000000000001"}),
        (YESTERDAY, {COSTS: "7"}),
    ]
    assert [(one.model, one.project_id) for one in openai_days(sight, only=YESTERDAY).days] == [("tts-1", "proj_a")]
    assert openai_days(sight, only=YESTERDAY).sums == page.sums
    assert to_csv(page, "sums").splitlines()[0].split(",")[0] == "day"
    database.close()


def test_bill_is_polled_when_its_numbers_arrive_although_no_key_is_set_here(tmp_path: Path) -> None:
    def polled(hours_later: int, *, key: bool = False) -> bool:
        sight = Sight(database, (HOUR0 + hours_later) * HOUR_NS)
        return {one.provider: one.polled for one in connections(sight, openai=key, anthropic=False).billing}["openai"]

    database = ledger(tmp_path / "ledger.db", hour_iso(HOUR0))
    assert polled(1)
    assert not polled(30)
    assert polled(30, key=True)
    database.close()
