"""When resources are polled: once per interval, failed ones within minutes, and none later than the others."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.poller.agenda import TOGETHER, Agenda
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.credentials import ApiKeys
from tallystream.streams.poller.errors import FailureReason, PollError
from tallystream.streams.poller.poll_run import PollResult
from tallystream.streams.poller.resources import Resource

A, B = Resource(path="/a"), Resource(path="/b")
CONFIG = PollerConfig(
    kafka=KafkaSettings("127.0.0.1:9092"),
    topics=Topics("t", 1),
    resources=(A, B),
    tokens=ApiKeys({}),
    interval=7200.0,
    jitter=0.0,
    retry=60.0,
)


def failed(*names: str, retry_after: float | None = None) -> PollResult:
    error = PollError(FailureReason.SERVER_ERROR, "down", retry_after=retry_after)
    return PollResult(failures=dict.fromkeys(names, error))


def test_resources_are_due_at_the_start_and_then_once_per_interval() -> None:
    agenda = Agenda(CONFIG)
    assert agenda.due(0.0) == [A, B]
    agenda.note([A, B], failed(), 10.0)
    assert agenda.next_at() == 7210.0
    assert agenda.due(7000.0) == []
    assert agenda.due(7210.0) == [A, B]


def test_failed_resource_is_retried_with_growing_delays() -> None:
    agenda, now, waits = Agenda(CONFIG), 0.0, []
    agenda.note(agenda.due(now), failed("/a"), now)
    while agenda.next_at() < 7200.0:
        waits.append(agenda.next_at() - now)
        now = agenda.next_at()
        assert agenda.due(now) == [A]
        agenda.note([A], failed("/a"), now)
    assert 30 <= waits[0] <= 60
    for number, wait in enumerate(waits):
        assert 30 * 2**number <= wait <= 60 * 2**number
    assert agenda.next_at() == 7200.0
    assert agenda.due(7200.0) == [A, B]


def test_recovered_resource_returns_to_the_interval() -> None:
    agenda = Agenda(CONFIG)
    agenda.note([A, B], failed("/a"), 0.0)
    agenda.note([A], failed("/a"), 60.0)
    agenda.note([A], failed(), 180.0)
    assert agenda.next_at() == 7200.0
    agenda.note([A, B], failed("/a"), 7200.0)
    assert 30 <= agenda.next_at() - 7200.0 <= 60


def test_retry_after_of_the_server_is_followed() -> None:
    agenda = Agenda(CONFIG)
    agenda.note([A, B], failed("/b", retry_after=900.0), 0.0)
    assert agenda.next_at() == 900.0


@given(st.floats(1, 86_400), st.lists(st.booleans(), min_size=1, max_size=30))
def test_every_resource_is_polled_without_busy_loops(interval: float, outcomes: list[bool]) -> None:
    agenda, now = Agenda(replace(CONFIG, interval=interval, retry=min(60.0, interval))), 0.0
    for good in outcomes:
        due = agenda.due(now)
        assert due
        agenda.note(due, failed() if good else failed(*(one.name for one in due)), now)
        assert now < agenda.next_at() <= now + max(interval, TOGETHER)
        now = agenda.next_at()
