"""Faust's partition assignor, changed so that a machine may change its host name between two starts, and an
administrator a topic's partition count.
"""

from __future__ import annotations

from typing import Any

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from faust.assignor import PartitionAssignor
from faust.assignor.client_assignment import ClientMetadata
from yarl import URL

CANONICAL_URL = "http://worker.tallystream.invalid:6066"
"""The URL of Faust's web server, which is off. It is the same for every worker, so that assignments do not contain host
names."""


class _AsCreated:
    """Kafka's metadata without the partitions that were added to a topic later."""

    def __init__(self, cluster: ClusterMetadata, partitions: int) -> None:
        self._cluster = cluster
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Return the partitions that we write to."""
        found = self._cluster.partitions_for_topic(topic)
        return None if found is None else {one for one in found if one < self._partitions}


class StableAssignor(PartitionAssignor):
    """Accepts an assignment that was made for another URL of this member, and assigns only partitions that are used.

    If the partition count of a source is raised, Faust no longer takes it and its changelog for co-partitioned: they
    would be assigned independently of each other, and the added partitions without a changelog
    (`_get_copartitioned_groups`, which asks the metadata only for `partitions_for_topic`). Nothing is ever written to
    the added ones, so they are left out.

    The broker gives a returning static member its previous assignment, made by the group's leader at that time. Faust
    asserts that the URL in it is its own (`on_assignment` in faust/assignor/partition_assignor.py), which ends
    aiokafka's coordination task: with the default, the host name, a laptop in another network would hang at its start.
    Relies on `_url` being what is compared.
    """

    _assigned_url: URL | None = None

    @property
    def _url(self) -> URL:
        return self._assigned_url or super()._url

    def assign(self, cluster: ClusterMetadata, member_metadata: Any) -> Any:
        """Assign the partitions that the topics were created with."""
        return super().assign(_AsCreated(cluster, self.app.conf.topic_partitions), member_metadata)

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Take the assignment, whatever URL it names."""
        metadata = ClientMetadata.loads(self._decompress(assignment.user_data))
        self._assigned_url = URL(metadata.url)
        try:
            super().on_assignment(assignment)
        finally:
            self._assigned_url = None
