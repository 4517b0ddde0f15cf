"""The backlog: changes are sent before sweeps."""

from __future__ import annotations

from tallystream.agents.port_sink.pipeline.backlog import Backlog, Waiting


def test_changes_are_sent_before_sweeps_and_only_once() -> None:
    backlog = Backlog(["connection", "session"])
    backlog.resync("connection", [b"c1", b"c2"], 10)
    backlog.add("session", b"s1", 20)
    backlog.add("session", b"s1", 30)
    backlog.again("session", b"s1", 5)
    assert (len(backlog), backlog.since_ms()) == (3, 10)
    assert backlog.take(5) == ("session", [(b"s1", Waiting(20, 20))])
    assert len(backlog) == 3, "what was taken is not mapped yet"
    assert backlog.take(1) == ("connection", [(b"c1", Waiting(10, None))])
    assert backlog.take(1) == ("connection", [(b"c2", Waiting(10, None))])
    backlog.mapped()
    assert len(backlog) == 0
    backlog.again("session", b"s2", 40)
    backlog.add("session", b"s2", 30)
    assert backlog.take(1) == ("session", [(b"s2", Waiting(40, 30))]), (
        "a change is one, though it was to be sent anyway"
    )
    assert backlog.take(1) is None
