"""Claude Code: disjoint counts, cache lifetimes, request ids, and its own cost estimate."""

from __future__ import annotations

import pytest
from tests.support.otlp_bodies import AT_NS, Attribute, Group, Record, encode

from tallystream.schemas.clients import LogsResult, normalise_logs
from tallystream.schemas.errors import Reason
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.usage import UsageEvent

SCOPE = "com.anthropic.claude_code.events"


def response(**changes: Attribute) -> Record:
    """Return a record as Claude Code writes it."""
    attributes: dict[str, Attribute] = {
        "user.id": "94e8996b",
        "session.id": "s-1",
        "event.name": "api_request",
        "event.timestamp": "2026-11-21T19:47:30.374Z",
        "event.sequence": 7,
        "prompt.id": "p-1",
        "model": "claude-haiku-4-5",
        "input_tokens": 121,
        "output_tokens": 12,
        "cache_read_tokens": 40,
        "cache_creation_tokens": 1200,
        "cache_creation_5m_tokens": 1000,
        "cache_creation_1h_tokens": 200,
        "cost_usd": 0.0016809999999999998,
        "cost_usd_micros": 1681,
        "duration_ms": 119,
        "request_id": "req_1",
        "speed": "normal",
    }
    return Record(list(attributes.items()), AT_NS, AT_NS).having(**changes)


def normalised(*records: Record, scope: str = SCOPE) -> LogsResult:
    groups = [Group(records, {"service.name": "claude-code", "team": "payments"}, scope)]
    first, second = (normalise_logs(encode(groups, encoding), encoding) for encoding in Encoding)
    assert first == second
    return first


def event(record: Record) -> dict[str, object]:
    result = normalised(record)
    assert not result.rejected
    ((found,),) = [pack.events for pack in result.packs]
    return found


def test_response_becomes_one_event() -> None:
    (pack,) = normalised(response()).packs
    assert (pack.client, pack.provider, pack.session_id) == ("claude", "anthropic", "s-1")
    assert pack.attribution == {"team": "payments", "user": "94e8996b"}
    assert pack.events == [
        {
            "event_id": "1396a895c86a6bff",
            "occurred_at": AT_NS,
            "model": "claude-haiku-4-5",
            "input_uncached": 121,
            "cache_read": 40,
            "cache_write_5m": 1000,
            "cache_write_1h": 200,
            "output": 12,
            "reasoning": 0,
            "tool": 0,
            "turn_id": "p-1",
            "speed": "normal",
            "reported_cost_usd": "0.001681",
        }
    ]


def test_request_id_is_the_identity() -> None:
    assert event(response())["event_id"] == event(response(duration_ms=120, event__sequence=1))["event_id"]
    assert event(response())["event_id"] != event(response(request_id="req_2"))["event_id"]
    bare = response(request_id=None)
    assert event(bare)["event_id"] != event(bare.having(duration_ms=120))["event_id"]


@pytest.mark.parametrize(
    ("whole", "short", "long", "written"),
    [
        (1200, 1000, 200, (1000, 200)),
        (1200, None, None, (1200, 0)),
        (1200, None, 200, (1000, 200)),
        (None, 5, 6, (5, 6)),
    ],
)
def test_cache_writes_without_a_lifetime_are_5_minute_writes(
    whole: int | None, short: int | None, long: int | None, written: tuple[int, int]
) -> None:
    found = event(response(cache_creation_tokens=whole, cache_creation_5m_tokens=short, cache_creation_1h_tokens=long))
    assert (found["cache_write_5m"], found["cache_write_1h"]) == written


@pytest.mark.parametrize("changes", [{"cache_creation_tokens": -1}, {"input_tokens": -1}, {"output_tokens": "x"}])
def test_impossible_counts_become_dead_letters(changes: dict[str, int | str]) -> None:
    (lost,) = normalised(response(**changes)).rejected
    assert (lost.reason, lost.client, lost.session_id) == (Reason.INVALID_COUNTS, "claude", "s-1")


@pytest.mark.parametrize(
    "changes",
    [
        {"input_tokens": 2**40 - 40 - 1200 - 12},
        {"input_tokens": 2**39, "output_tokens": 2**39},
        {"output_tokens": 2**53 - 1},
    ],
)
def test_more_tokens_than_a_response_can_have_are_a_dead_letter(changes: dict[str, int | str]) -> None:
    (lost,) = normalised(response(**changes)).rejected
    assert lost.reason is Reason.INVALID_COUNTS
    assert "1099511627776 tokens or more" in lost.detail


@pytest.mark.parametrize(
    "changes", [{"cache_creation_1h_tokens": 300}, {"cache_creation_1h_tokens": -1}, {"cache_creation_5m_tokens": "x"}]
)
def test_total_counts_if_the_breakdown_contradicts_it(changes: dict[str, int | str]) -> None:
    found = event(response(**changes))
    assert (found["cache_write_5m"], found["cache_write_1h"], found["inconsistent"]) == (1200, 0, True)


@pytest.mark.parametrize(
    "placeholder",
    [
        "",
        " ",
        "unknown",
        "UNKNOWN",
        "null",
        "None",
        "<nil>",
        "undefined",
        "n/a",
        "-",
        "0",
        "000000000000",
        "[object Object]",
        "00000000-0000-0000-0000-000000000000",
        "req_unknown",
        "req_0000",
        "(not set)",
        "REDACTED",
        "***",
        "xxxx",
        "NaN",
    ],
)
def test_placeholder_request_id_is_not_an_identity(placeholder: str) -> None:
    ids = {event(response(request_id=placeholder, event__sequence=number))["event_id"] for number in (1, 2)}
    assert len(ids) == 2


@pytest.mark.parametrize(
    "real", ["req_1", "req_011CSHoEeqs5C35K2UUqR7Fy", "0a", "f00d", "nanny", "req_nullable", "testing-5"]
)
def test_short_or_unusual_request_id_is_an_identity(real: str) -> None:
    ids = {event(response(request_id=real, event__sequence=number))["event_id"] for number in (1, 2)}
    assert len(ids) == 1


@pytest.mark.parametrize("cost", [None, -1.0, True, "much", "0." + "1" * 80, 1e9, 1e257, "Infinity", "NaN", [0.5]])
def test_invalid_cost_estimate_is_left_out(cost: Attribute) -> None:
    found = event(response(cost_usd=cost))
    assert "reported_cost_usd" not in found
    assert UsageEvent.model_validate(found).output == 12


def test_cost_estimate_may_be_text() -> None:
    assert event(response(cost_usd="0.0016809999999999998"))["reported_cost_usd"] == "0.001681"


def test_repeated_usage_is_ignored_and_unknown_records_are_reported() -> None:
    repeat = response(event__name="subagent_completed", total_tokens=2490)
    assert not normalised(
        repeat,
        response(input_tokens=0, output_tokens=0, cache_read_tokens=0).having(
            cache_creation_tokens=0, cache_creation_5m_tokens=0, cache_creation_1h_tokens=0
        ),
    ).rejected
    (renamed,) = normalised(response(event__name="model_request")).rejected
    nobodys = encode([Group([response(cache_read_tokens=None)], {}, "another.agent")], Encoding.JSON)
    (foreign,) = normalise_logs(nobodys, Encoding.JSON).rejected
    assert (renamed.reason, renamed.client) == (Reason.UNRECOGNISED_USAGE, "claude")
    assert (foreign.reason, foreign.client) == (Reason.UNRECOGNISED_USAGE, None)
