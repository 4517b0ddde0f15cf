"""What the doctor says of OpenAI and of Port, from the status of poller and sink."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tallystream.doctor import names, openai, port
from tallystream.schemas.status import PollerStatus, ResourceStatus, SinkStatus

AT = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
ANSWERED = ResourceStatus(name="/models", key="api", last_success_at=AT)
REFUSED: dict[str, Any] = {
    "reason": "forbidden",
    "message": "OpenAI answered 403",
    "next_step": "set the admin key",
    "last_failure_at": AT,
}
POLLER = PollerStatus(active=True, days_offset=3, interval_seconds=7200, keys=["api"], resources=[ANSWERED])
SINK = SinkStatus(
    active=True, sweep_running=False, repetitions_due=0, backlog_documents=0, backlog_entities=0, behind_seconds=0.0,
    read=[], kinds=["session", "/models"],
)  # fmt: skip


def refused(*names_: str) -> list[ResourceStatus]:
    return [ResourceStatus(name=name, key="admin", **REFUSED) for name in names_]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"resources": [ANSWERED, *refused("/organization/costs")]}, ["/organization/costs cannot be polled"]),
        ({"resources": refused("/a", "/b", "/c", "/d", "/e")}, ["/a, /b, /c and 2 others"]),
        ({"held_days": {"invalid": 1, "incomplete": 0}}, ["1 day keeps the figures they had: an amount"]),
        ({"held_days": {"invalid": 0, "incomplete": 31}}, ["31 days keep"]),
        ({"not_polled": ["/x cannot be polled"]}, ["/x cannot"]),
    ],
)
def test_findings_about_openai(changes: dict[str, Any], words: list[str]) -> None:
    found = openai.judge(POLLER.model_copy(update=changes))
    assert [one.check for one in found] == ["openai"] * len(words)
    assert all(word in one.what for word, one in zip(words, found, strict=True))
    assert all(one.step for one in found)


def test_openai_section_shows_what_each_key_works_for() -> None:
    late = ResourceStatus(name="/usage", key="api", last_success_at=AT, **REFUSED)
    status = POLLER.model_copy(update={"resources": [ANSWERED, late, *refused("/organization/costs")]})
    said = dict(openai.lines(status))
    assert said["api key"] == "set; 1 of 2 resources answered; refused for /usage"
    assert said["admin key"].startswith("not set, the API key is tried; 0 of 1")
    assert said["/models"] == "succeeded 2026-11-21 14:00:00 UTC"
    assert said["/usage"].endswith("(forbidden), succeeded 2026-11-21 14:00:00 UTC")
    assert "never" in said["/organization/costs"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"problem": "Port answered 401", "next_step": "check the secret"}, ["Port answered 401"]),
        ({"problem": "away", "behind_seconds": 7200.0}, ["away"]),
        (
            {"missing_blueprints": {"session": ["coding_agent_session"]}},
            ["session: Port has no blueprint coding_agent_session"],
        ),
        ({"not_registered": "Port answered 403"}, ["is not registered as an integration in Port: Port answered 403"]),
        ({"unmatched_kinds": ["/usage"]}, ["makes nothing of any record of /usage"]),
        ({"refused_entities": 2, "unmapped_records": 1}, ["refused 2 entities, and 1 records"]),
        ({"behind_seconds": 1200.0}, ["20 minutes old"]),
    ],
)
def test_findings_about_port(changes: dict[str, Any], words: list[str]) -> None:
    found = port.judge(SINK.model_copy(update=changes))
    assert [one.check for one in found] == ["port"] * len(words)
    assert all(word in one.what for word, one in zip(words, found, strict=True))
    assert all(one.step for one in found)


def test_port_section_shows_blueprints_mapping_rate_and_backlog() -> None:
    said = dict(
        port.lines(SINK.model_copy(update={"missing_blueprints": {"session": ["b", "a"]}, "remaining_calls": 12}))
    )
    assert said["blueprints"] == "missing: a, b"
    assert said["mapping"] == "2 kinds: session, /models"
    assert "12 calls left" in said["pace"]
    assert "0 s behind" in said["backlog"]


async def test_variables_without_effect_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCEAN__INTEGRATION__CONFIG__PAGE_SIZE", "100")
    (found,) = await names.look(None)  # type: ignore[arg-type]  # it looks at the environment alone
    assert "PAGE_SIZE" in found.what
    assert "selector.pagination" in found.step
