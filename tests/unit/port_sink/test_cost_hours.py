"""Hours in Port by agent: the parts of all partitions' rows, which add up to the hour."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import orjson
from tests.support.stored_rows import StoredRows

from tallystream.agents.port_sink import blueprints
from tallystream.agents.port_sink.documents.feeds import HourFeed
from tallystream.agents.port_sink.documents.telemetry import CostHourDocuments
from tallystream.agents.port_sink.mapping import Mapper, default_text
from tallystream.agents.port_sink.mapping.entities import rules
from tallystream.schemas import keys
from tallystream.schemas.rows import SUM_COUNTS, HourCost
from tallystream.streams.kafka.global_table import StoredRow

HOUR = "2026-11-21T14:00:00Z"
KNOWN = rules(blueprints.load(session_hours=True))
BY_AGENT = """
resources:
  - kind: cost-hour
    selector: {query: 'true'}
    port:
      itemsToParse: .agents
      entity:
        mappings:
          identifier: .hour + ":" + .model + ":" + (if .item.agent then .item.agent else "none" end)
          blueprint: '"coding_agent_cost_hour"'
          properties:
            hour: .hour
            model: .model
            cost_usd: .item.cost
            requests: .item.requests
"""


def sums(requests: int, usd: str | None) -> dict[str, Any]:
    return {**dict.fromkeys(SUM_COUNTS, 0), "requests": requests, "cost_usd": usd, "reported_cost_usd": None}


def hour_of(*partials: dict[str, Any]) -> dict[str, Any]:
    """Return the document of an hour that consists of these rows."""
    kept = StoredRows()
    for partition, partial in enumerate(partials):
        head = {"partition": partition, "connection_id": "c", "hour": HOUR, "model": "o3", "team": None}
        row = HourCost.model_validate({**head, "version": [0, 1], **partial}).model_dump(exclude_unset=True)
        key = keys.join(str(partition), "c", HOUR, "o3", "")
        message: Any = SimpleNamespace(key=key, value=orjson.dumps(row), offset=1, partition=partition, timestamp=1)
        for stored in HourFeed("t").rows(message):
            assert stored.value is not None
            kept.rows[stored.key] = StoredRow(stored.version, 1, stored.value)
    kind = CostHourDocuments()
    (key,) = kind.keys(kept)
    document = kind.build(kept, key)
    assert document is not None
    (record,) = document.records
    return dict(record)


def test_agents_of_an_hour_add_up_to_it_whichever_release_wrote_its_rows() -> None:
    hour = hour_of(
        {**sums(3, "0.75"), "agents": [{"agent": None, **sums(1, None)}, {"agent": "main", **sums(2, "0.75")}]},
        {**sums(4, "0.1"), "agents": [{"agent": "main", **sums(4, "0.1")}]},
        sums(8, "0.015"),  # of an earlier release
        {**sums(16, "1"), "agents": None},  # of too many agents
    )
    assert [(part["agent"], part["requests"], part["cost_usd"]) for part in hour["agents"]] == [
        (None, 25, "1.015"), ("main", 6, "0.85"),
    ]  # fmt: skip
    assert (hour["requests"], hour["cost_usd"]) == (31, "1.865")
    mapper = Mapper(default_text())
    ((_, entity),) = mapper.run("cost-hour", [(hour, {})], KNOWN).entities
    assert entity.body["properties"]["agent_names"] == ["main"]


def test_mapping_makes_an_entity_of_each_agent_of_an_hour() -> None:
    hour = hour_of({**sums(3, "0.5"), "agents": [{"agent": name, **sums(1, "0.25")} for name in ("main", None)]})
    found = Mapper(BY_AGENT).run("cost-hour", [(hour, {})], KNOWN)
    assert found.failures == []
    assert {entity.key.identifier: entity.body["properties"]["cost_usd"] for _, entity in found.entities} == {
        f"{HOUR}:o3:main": Decimal("0.25"), f"{HOUR}:o3:none": Decimal("0.25"),
    }  # fmt: skip
