"""A static member gets the assignment that it had under another host name."""

from __future__ import annotations

from typing import Any

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
