"""Every metric that the poller and the sink declare must change when the event that it describes happens."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.support.port_rig import Rig, SinkProcess, make_row, rig, sink
from tests.support.waiting import until

from tallystream.agents.port_sink.mapping import default_text
from tallystream.reference.metrics import registry_of
from tallystream.sandbox import Fault
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.poller.resources import builtin

pytestmark = pytest.mark.kafka
HOUR = "2026-11-21T13:00:00Z"
BULK = "coding_agent_session/entities/bulk"
ELSEWHERE = {
    "tallystream_poller_records_repaired": "a replaced poller must write late: test_polls.py",
    "tallystream_poller_polls_discarded": "a poller must be replaced in mid-poll: test_election.py",
    "tallystream_poller_reconciliation_book_price_ratio": "needs priced rows of ours as well: unit/reconciliation",
    "tallystream_poller_reconciliation_coverage_ratio": "needs priced rows of ours as well: unit/reconciliation",
    "tallystream_sink_unmatched_kinds": "a mapping must never match, and this one does: test_single_pass.py",
}
"""Metrics that cannot change in one deployment without stopping processes, and the tests of them."""
UNMADE = """
  - kind: /organization/costs
    selector:
      query: 'true'
    port:
      entity:
        mappings:
          identifier: .line_item
          blueprint: '"nobody_made_this"'
"""
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series(page: str) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def declared(component: str) -> dict[str, float]:
    """The initial value of each family's series, by name of the family."""
    return {family.name: -1.0 if family.name.endswith("_remaining") else 0.0
            for family in registry_of(component).collect()}  # fmt: skip


class Watch:
    """The families that have had another value than the initial one."""

    def __init__(self, component: str) -> None:
        self.waiting = declared(component)

    def look(self, page: str) -> bool:
        """Read a metrics page; tell whether all families have changed."""
        for family in text_string_to_metric_families(page):
            if family.name in self.waiting and any(one.value != self.waiting[family.name] for one in family.samples):
                del self.waiting[family.name]
        return not set(self.waiting) - ELSEWHERE.keys()


@contextmanager
def poller(one: Rig, directory: Path) -> Iterator[SinkProcess]:
    """Provide a `tallystream poller` on the rig's sandbox, with the same access to its ops port as for a sink."""
    found = SinkProcess(one, directory)
    found.argv = [sys.executable, "-m", "tallystream", "poller", "--ops-port", str(found.port)]
    found.environment |= {
        "TALLYSTREAM_OPENAI_BASE_URL": f"{one.sandbox.url}/openai/v1",
        "TALLYSTREAM_OPENAI_API_TOKEN": "sk-sandbox",
        "TALLYSTREAM_OPENAI_INTERVAL": "PT1S",
        "TALLYSTREAM_OPENAI_RESOURCES": str(resources(directory)),
    }
    found.start()
    try:
        yield found
    finally:
        found.kill()


def resources(directory: Path) -> Path:
    """The built-in resources, and one that uses only the first bucket of an answer, so that the others are missing."""
    path = directory / "resources.yaml"
    costs = next(resource for resource in builtin() if resource.name == "/organization/costs")
    shortened = costs.model_dump(mode="json", exclude_none=True) | {"name": "first-day", "data": ".data[:1]"}
    path.write_text(
        yaml.safe_dump({"resources": [{key: value for key, value in shortened.items() if value is not None}]})
    )
    return path.rename(directory / "resources.yaml")


def mapping(directory: Path) -> Path:
    """Port refuses a text where the blueprint wants a number, and JQ fails where a number meets a text.

    Another kind names a blueprint that does not exist.
    """
    path = directory / "mapping.yaml"
    path.write_text(
        default_text()
        .replace(
            "requests: .requests\n            unpriced",
            'requests: (if .session_id == "bad" then "x" else .requests end)\n            unpriced',
            1,
        )
        .replace("title: .session_id\n", 'title: (if .session_id == "worse" then 1 + "a" else .session_id end)\n', 1)
        + UNMADE
    )  # fmt: skip
    return path


async def test_every_sink_metric_changes_on_its_event(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    rng = random.Random(31)
    async with rig(kafka, prefix) as one:
        watch = Watch("sink")
        settings = {"TALLYSTREAM_PORT_MAPPING": str(mapping(tmp_path)), "TALLYSTREAM_PORT_TIMEOUT": "PT3S"}
        # It has to be written before the rule can delete it.
        await one.rows(make_row(rng, "old", "2024-01-01T00:00:00Z", 1))
        with sink(one, tmp_path, **settings) as running:
            await until(lambda: one.entities("coding_agent_session"), "the old one is there")
            assert await running.stop() == 0
        for fault in (
            Fault(match=BULK, kind="status", status=429, retry_after=1, times=1),
            Fault(match=BULK, kind="hang", after=True, seconds=4, times=1),
            Fault(match=BULK, kind="latency", seconds=0.3, times=20),
        ):
            one.sandbox.faults.add(fault)
        with sink(one, tmp_path, TALLYSTREAM_PORT_RETENTION="P365D", **settings) as running:
            sent = 0

            async def all_seen() -> bool:
                nonlocal sent
                if watch.look(await running.page("/metrics")):
                    return True
                sent += 1
                # More documents than are mapped ahead of a slow Port, so that some wait. The entities of the request
                # without an answer are sent again although they have not changed.
                names = ["bad", "worse", *(f"s{number}" for number in range(*(0, 2000) if sent == 1 else (40, 60)))]
                await one.rows(*(make_row(rng, name, HOUR, sent) for name in names))
                if sent % 4 == 0 and "gpt-5" in one.entities("openai_model"):
                    one.sandbox.store.delete("openai_model", "gpt-5", dependents=True)
                return False

            await until(all_seen, lambda: f"never seen to move: {sorted(watch.waiting)}")
            found = series(await running.page("/metrics"))
            assert 0 < found["tallystream_sink_remaining_calls", ()] < 35_000, "calls of Port's documented limit"
            rate = found["tallystream_sink_request_rate_per_second", ()]
            assert 5 < rate <= 35_000 / 300, "the pace is planned from the headers, not the cautious one of the start"


async def test_every_poller_metric_changes_on_its_event(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    async with rig(kafka, prefix) as one:
        watch = Watch("poller")
        for fault in (
            Fault(match="/openai/v1/models", kind="status", status=403, times=1),
            Fault(match="/openai/v1/usage", kind="status", status=503, times=1),
            # Until it is seen, every day is incomplete, because one of its resources is missing.
            Fault(match="/organization/usage/completions", kind="status", status=403),
        ):
            one.sandbox.faults.add(fault)
        with poller(one, tmp_path) as running:
            turn = 0

            async def all_seen() -> bool:
                nonlocal turn
                if watch.look(await running.page("/metrics")):
                    return True
                if "tallystream_poller_held_bills" not in watch.waiting:
                    one.sandbox.faults.clear()
                turn += 1
                if turn % 20 == 0:
                    one.sandbox.source.restate(int(one.sandbox.now()) // 86_400 - 1)  # type: ignore[union-attr]
                return False

            await until(all_seen, lambda: f"never seen to move: {sorted(watch.waiting)}")
