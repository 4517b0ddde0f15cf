"""Faust's partition assignor, changed so that a machine may change its host name between two starts."""

from __future__ import annotations

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from faust.assignor import PartitionAssignor
from faust.assignor.client_assignment import ClientMetadata
from yarl import URL

CANONICAL_URL = "http://worker.tallystream.invalid:6066"
"""The URL of Faust's web server, which is off. It is the same for every worker, so that assignments do not contain host
names."""


class StableAssignor(PartitionAssignor):
    """Accepts an assignment that was made for another URL of this member.

    The broker gives a returning static member its previous assignment, made by the group's leader at that time. Faust
    asserts that the URL in it is its own (`on_assignment` in faust/assignor/partition_assignor.py), which ends
    aiokafka's coordination task: with the default, the host name, a laptop in another network would hang at its start.
    Relies on `_url` being what is compared.
    """

    _assigned_url: URL | None = None

    @property
    def _url(self) -> URL:
        return self._assigned_url or super()._url

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Take the assignment, whatever URL it names."""
        metadata = ClientMetadata.loads(self._decompress(assignment.user_data))
        self._assigned_url = URL(metadata.url)
        try:
            super().on_assignment(assignment)
        finally:
            self._assigned_url = None
