"""Requests with unknown outcome are repeated until they can no longer take effect."""

from __future__ import annotations

from tallystream.agents.port_sink.mapping.entities import EntityKey
from tallystream.agents.port_sink.state.in_doubt import MARGIN_MS, InDoubt
from tallystream.schemas.port import PlannedEntity, PlannedRequest, PortSource


def plan(until_ms: int = 0) -> PlannedRequest:
    entity = PlannedEntity(blueprint="b", identifier="i", source=PortSource(kind="session", key="k"))
    return PlannedRequest(writer="0" * 12, slot=1, until_ms=until_ms, entities=[entity])


class TestDoubts:
    KEY = EntityKey("b", "i")

    def test_plans_of_another_sink_are_repeated_until_its_token_expires(self) -> None:
        in_doubt, sent = InDoubt(), []
        in_doubt.add_foreign(plan(10_000_000), 0, 8_000)
        for now in range(0, 10_200_000, 1_000):
            assert in_doubt.soon == (2 if now == 0 else 1 if now <= 8_000 else 0), "the last one is hours away"
            if in_doubt.due(now):
                sent.append(now)
                assert not in_doubt.settled(now), "not before it has been sent"
                assert self.KEY in in_doubt.forced
                in_doubt.forced.discard(self.KEY)
        assert sent == [0, 8_000, 10_000_000 + MARGIN_MS]
        assert [one.slot for one in in_doubt.settled(10_200_000)] == [1]
        assert not in_doubt.settled(10_200_000)

    def test_own_request_with_unknown_outcome_is_repeated_once(self) -> None:
        in_doubt = InDoubt()
        in_doubt.add(plan(), 5_000)
        assert in_doubt.soon == 1
        assert not in_doubt.due(4_999)
        assert [doubt.entity for doubt in in_doubt.due(5_000)] == [self.KEY]
        assert not in_doubt.due(6_000)
        assert not in_doubt.settled(6_000)
        in_doubt.forced.clear()
        assert in_doubt.settled(6_000)
        assert len(in_doubt) == 0
