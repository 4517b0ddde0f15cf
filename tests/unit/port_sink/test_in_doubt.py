"""Requests of unknown fate are repeated until they cannot land any more."""

from __future__ import annotations

from tallystream.agents.port_sink.mapping.entities import EntityKey
from tallystream.agents.port_sink.state.in_doubt import MARGIN_MS, Doubts
from tallystream.schemas.port import PlannedEntity, PlannedRequest, PortSource


def plan(until_ms: int = 0) -> PlannedRequest:
    entity = PlannedEntity(blueprint="b", identifier="i", source=PortSource(kind="session", key="k"))
    return PlannedRequest(writer="0" * 12, slot=1, until_ms=until_ms, entities=[entity])


class TestDoubts:
    KEY = EntityKey("b", "i")

    def test_what_another_sink_planned_is_sent_until_its_token_has_expired(self) -> None:
        doubts, sent = Doubts(), []
        doubts.add_foreign(plan(10_000_000), 0, 8_000)
        for now in range(0, 10_200_000, 1_000):
            assert doubts.soon == (2 if now == 0 else 1 if now <= 8_000 else 0), "the last one is hours away"
            if doubts.due(now):
                sent.append(now)
                assert not doubts.settled(now), "not before it has been sent"
                assert self.KEY in doubts.forced
                doubts.forced.discard(self.KEY)
        assert sent == [0, 8_000, 10_000_000 + MARGIN_MS]
        assert [one.slot for one in doubts.settled(10_200_000)] == [1]
        assert not doubts.settled(10_200_000)

    def test_a_request_of_ours_is_doubted_once(self) -> None:
        doubts = Doubts()
        doubts.add(plan(), 5_000)
        assert doubts.soon == 1
        assert not doubts.due(4_999)
        assert [doubt.entity for doubt in doubts.due(5_000)] == [self.KEY]
        assert not doubts.due(6_000)
        assert not doubts.settled(6_000)
        doubts.forced.clear()
        assert doubts.settled(6_000)
        assert len(doubts) == 0
