"""The guard that checks heartbeats before each write."""

from __future__ import annotations

import pytest
from tests.support.counting import CountsTable, EndedError

from tallystream.streams.runtime.membership import Membership


class Hand:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_membership_age_counts_from_the_sending_of_a_heartbeat() -> None:
    clock = Hand()
    membership = Membership(10.0, clock)
    assert membership.lost()
    sent = membership.now()
    clock.now = 105.0  # the answer was slow
    membership.confirmed(sent)
    clock.now = 110.0
    assert membership.lost() is None
    clock.now = 110.1
    assert "10.1 s ago" in (membership.lost() or "")
    membership.confirmed(110.0)
    assert membership.lost() is None
    membership.ended()
    assert membership.lost() == "not a member of the group"
    clock.now = 200.0
    assert membership.silence() == 90.0


async def test_writing_without_membership_is_refused(table: CountsTable) -> None:
    with pytest.raises(EndedError):
        table.app.must_be_member()
    table.app.context.membership.confirmed(table.app.context.membership.now())
    table.app.must_be_member()
