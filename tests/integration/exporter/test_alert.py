"""One alert end to end: a worker dies, Prometheus notices, Alertmanager notifies a webhook; then it is resolved."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.exporter import exporter
from tests.support.prometheus import RULES, alerting, needs_prometheus, prometheus
from tests.support.usage import fleet
from tests.support.waiting import eventually
from tests.support.worker import producing, worker

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = [pytest.mark.kafka, needs_prometheus]


@pytest.fixture
def impatient(tmp_path: Path) -> Path:
    """Provide our rules with a shorter `for`, because a test cannot wait for minutes."""
    folder = tmp_path / "rules"
    folder.mkdir()
    for path in (RULES / "rules").glob("*.yml"):
        (folder / path.name).write_text(re.sub(r"^( +for:) \w+$", r"\1 1s", path.read_text(), flags=re.MULTILINE))
    return folder


def told(got: list[dict[str, Any]], alert: str, status: str, since: datetime) -> Iterator[dict[str, Any]]:
    """Yield what the webhook was told of an alert that began after `since`."""
    for message in got:
        for one in message["alerts"]:
            began = datetime.fromisoformat(one["startsAt"])
            if (one["labels"]["alertname"], one["status"]) == (alert, status) and began > since:
                yield one


async def test_alert_for_a_dead_worker_and_its_resolution_reach_the_webhook(
    kafka: KafkaSettings, prefix: str, tmp_path: Path, impatient: Path
) -> None:
    topics = Topics(prefix, 3)
    await ensure(kafka, topics.all())
    messages = [(one.key, one.message(found)) for one, found in fleet(random.Random(3), 9, datetime.now(UTC))]
    with (
        worker(kafka, topics, tmp_path / "w") as folding,
        exporter(kafka, topics, tmp_path / "x") as seen,
        alerting(tmp_path / "alertmanager") as (port, got),
    ):
        folding.start()
        folding.ready()
        targets = {"worker": f"127.0.0.1:{folding.port}", "exporter": f"127.0.0.1:{seen.port}"}
        with prometheus(tmp_path / "prometheus", targets, alertmanager=port, rules=impatient) as asked:
            eventually(lambda: len(asked.query("up == 1")) == 2, "both are scraped")
            eventually(lambda: asked.value("sum(tallystream_exporter_consumer_lag_records)") == 0, "lag is known")
            # A busy machine may have missed a scrape or two before.
            down = 'ALERTS{alertname="TallystreamComponentDown"}'
            eventually(lambda: not asked.query(down), "no component is down")
            killed = datetime.now(UTC)
            folding.kill()
            async with producing(kafka) as producer:
                for key, value in messages:
                    await producer.send_and_wait(topics.usage.name, value, key=key)
            firing = partial(told, got, "TallystreamComponentDown", "firing", killed)
            alert = eventually(lambda: next(firing(), None), "the webhook is told")
            assert alert["labels"]["component"] == "worker"
            assert alert["labels"]["severity"] == "critical"
            assert alert["annotations"]["summary"] == f"worker at 127.0.0.1:{folding.port} does not answer"
            assert alert["annotations"]["runbook_url"].startswith("docs/operations/alerts.md#")
            lag = f'tallystream:consumer_lag_records:sum{{topic="{topics.usage.name}"}}'
            eventually(lambda: asked.value(lag) == len(messages), "the rule counts what waits")
            folding.start()
            resolved = partial(told, got, "TallystreamComponentDown", "resolved", killed)
            eventually(lambda: list(resolved()), "and that it is over")
