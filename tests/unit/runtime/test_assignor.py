"""What is assigned although a host name or a partition count has changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from faust.assignor import PartitionAssignor
from tests.support.counting import CountsTable

from tallystream.streams.runtime.faust_backend.assignor import CANONICAL_URL


async def test_assignment_for_another_host_name_is_accepted(table: CountsTable) -> None:
    assignor: Any = table.app.assignor
    assert str(assignor._url) == CANONICAL_URL
    assignor._assignment.actives = {"unit.source": [0, 1]}
    metadata = assignor._metadata
    metadata.url = "http://other-host:6066"
    given = assignor._assignment.kafka_protocol_assignment(table.app.tables)
    cached = ConsumerProtocolMemberAssignment(0, given, assignor._compress(metadata.dumps()))
    assignor.on_assignment(cached)
    assert {tuple(tp) for tp in assignor.assigned_actives()} == {("unit.source", 0), ("unit.source", 1)}
    assert str(assignor._url) == CANONICAL_URL, "what is told to the group does not change"
    assert isinstance(assignor, PartitionAssignor)


@pytest.mark.parametrize("raised", [3, 4, 5, 9])
async def test_partitions_added_to_a_source_are_not_assigned(table: CountsTable, raised: int) -> None:
    """Source and changelog stay co-partitioned, which Faust decides by their counts."""
    assignor: Any = table.app.assignor
    source, changelog = table.engine.source, table.engine.changelog
    counts = {source: raised, changelog: 2}
    cluster: Any = SimpleNamespace(partitions_for_topic=lambda topic: set(range(counts[topic])))
    members = {name: assignor.metadata(set(counts)) for name in ("a", "b", "c")}
    given = {
        name: {(topic, p) for topic, partitions in one.assignment for p in partitions}
        for name, one in assignor.assign(cluster, members).items()
    }
    assert set().union(*given.values()) == {(topic, p) for topic in counts for p in (0, 1)}
    for one in given.values():
        assert {p for topic, p in one if topic == source} == {p for topic, p in one if topic == changelog}
