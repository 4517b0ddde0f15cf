"""Faust's partition assignor, for which a machine may change its name between two starts."""

from __future__ import annotations

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from faust.assignor import PartitionAssignor
from faust.assignor.client_assignment import ClientMetadata
from yarl import URL

CANONICAL_URL = "http://worker.tallystream.invalid:6066"
"""Where Faust's web would be, which is off; the same for every worker, so that no host's name is in an assignment."""


class StableAssignor(PartitionAssignor):
    """Accepts an assignment made for another URL of this member.

    The broker gives a static member that comes back the assignment it had, made by whoever led then. Faust asserts that
    the URL in it is its own (`on_assignment` in faust/assignor/partition_assignor.py), and aiokafka's coordination task
    dies of that: with the default, the host's name, a laptop in another network hangs at its start. Relies on
    `_url` being what is compared.
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
