"""`tallystream reprice` over the usage topic of a real Kafka."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from tests.integration.cli.conftest import Cli
from tests.support.topics import produce
from tests.support.usage import Truth, fleet

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka
FREE = '[[price]]\nprovider = "openai"\nmodel = "o3"\ninput = "0"\noutput = "0"\n'


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.toml"
    path.write_text(FREE)
    return path


def test_reprice_shows_the_difference_and_changes_nothing(
    kafka: KafkaSettings, topics: Topics, cli: Cli, prices: Path
) -> None:
    truth, messages, now = Truth(), [], datetime.now(UTC)
    for session, events in fleet(random.Random(7), 40, now):
        truth.add(session, events, now)
        messages.append((session.key, session.message(events), sum(session.key) % topics.partitions))

    async def publish() -> None:
        await ensure(kafka, (topics.usage,))
        await produce(kafka, topics.usage.name, messages)

    asyncio.run(publish())
    document = cli("reprice", "--prices", str(prices), "--json").document
    # Other tiers than the standard one have separate prices, which the file does not change.
    freed = [key for key in truth.lines if key[2] == "o3" and key[3] is None]
    standard = sum((truth.lines[key].cost for key in freed), Decimal(0))
    total = document["total"]
    assert standard > 0
    assert total["requests"] == sum(line.counts["requests"] for line in truth.lines.values())
    assert Decimal(total["cost_usd"]) == sum(line.cost for line in truth.lines.values())
    assert Decimal(total["difference_usd"]) == sum(Decimal(row["difference_usd"]) for row in document["rows"])
    rows = {(row["model"], row["service_tier"]): row for row in document["rows"]}
    assert Decimal(rows["o3", None]["difference_usd"]) == -standard
    assert all(row["difference_usd"] == "0" for (model, _), row in rows.items() if model != "o3")
    teams = cli("reprice", "--prices", str(prices), "--by", "team", "--json").document
    assert teams["total"] == total
    assert {row["team"] for row in teams["rows"]} == {"platform", "search", "a|b%c", None}
    assert "Difference" in cli("reprice", "--prices", str(prices)).out
    only = cli("reprice", "--prices", str(prices), "--model", "O3", "--json").document
    assert only["rows"] == [row for row in document["rows"] if row["model"] == "o3"]
    early, late = (
        cli("reprice", "--prices", str(prices), option, "24h", "--json").document["total"]
        for option in ("--until", "--since")
    )
    assert 0 < early["requests"] < total["requests"] == early["requests"] + late["requests"]


def test_reprice_explains_missing_usage_and_invalid_files(cli: Cli, prices: Path) -> None:
    assert "keeps no usage" in cli("reprice", "--prices", str(prices)).out
    assert cli("reprice", "--prices", str(prices) + "x").code == 2
    assert "no cost rows" in cli("reprice", "--prices", str(prices), "--apply").out
    assert "add --yes" in cli("reprice", "--prices", str(prices), "--apply", "--json").err
    assert cli("reprice", "--prices", str(prices), "--yes").code == 2
