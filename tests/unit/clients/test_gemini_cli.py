"""Gemini CLI: input includes cached tokens, output excludes thoughts, and tool tokens are separate."""

from __future__ import annotations

import pytest
from tests.support.otlp_bodies import AT_NS, Attribute, Group, Record, encode

from tallystream.schemas.clients import LogsResult, normalise_logs
from tallystream.schemas.errors import Reason
from tallystream.schemas.otlp import Encoding


def response(**changes: Attribute) -> Record:
    """Return a record as Gemini CLI writes it."""
    attributes: dict[str, Attribute] = {
        "session.id": "s-1",
        "event.name": "gemini_cli.api_response",
        "event.timestamp": "2026-11-21T19:52:35.158Z",
        "model": "gemini-2.5-pro",
        "duration_ms": 114,
        "input_token_count": 2301,
        "output_token_count": 32,
        "cached_content_token_count": 601,
        "thoughts_token_count": 12,
        "tool_token_count": 7,
        "total_token_count": 2352,
        "prompt_id": "p-1",
        "finish_reasons": ["stop"],
    }
    return Record(list(attributes.items()), AT_NS, AT_NS).having(**changes)


def normalised(*records: Record) -> LogsResult:
    groups = [Group(records, {"service.name": "gemini-cli", "session.id": "of-resource"}, "gemini-cli")]
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
    assert (pack.client, pack.provider, pack.session_id) == ("gemini", "google", "s-1")
    assert pack.events == [
        {
            "event_id": "1032915a86ed6cd7",
            "occurred_at": AT_NS,
            "model": "gemini-2.5-pro",
            "input_uncached": 1700,
            "cache_read": 601,
            "cache_write_5m": 0,
            "cache_write_1h": 0,
            "output": 44,
            "reasoning": 12,
            "tool": 7,
            "turn_id": "p-1",
        }
    ]


@pytest.mark.parametrize("changes", [{"duration_ms": 115}, {"prompt_id": "p-2"}, {"tool_token_count": 8}])
def test_similar_parallel_calls_are_two_events(changes: dict[str, int | str]) -> None:
    assert event(response(**changes))["event_id"] != event(response())["event_id"]


def test_session_can_come_from_the_resource() -> None:
    (pack,) = normalised(response(session__id=None)).packs
    assert pack.session_id == "of-resource"


@pytest.mark.parametrize(
    "changes",
    [
        {"thoughts_token_count": -1},
        {"output_token_count": 2**53 - 1, "thoughts_token_count": 1},
    ],
)
def test_impossible_counts_become_dead_letters(changes: dict[str, int]) -> None:
    (lost,) = normalised(response(**changes)).rejected
    assert (lost.reason, lost.client) == (Reason.INVALID_COUNTS, "gemini")


def test_repeated_usage_is_ignored_and_unknown_records_are_reported() -> None:
    repeat = Record(
        [("event.name", "gen_ai.client.inference.operation.details"), ("gen_ai.usage.input_tokens", 2301)], AT_NS
    )
    assert not normalised(
        repeat,
        response(
            **dict.fromkeys(
                [
                    "input_token_count",
                    "output_token_count",
                    "cached_content_token_count",
                    "thoughts_token_count",
                    "tool_token_count",
                    "total_token_count",
                ],
                0,
            )
        ),
    ).rejected
    (renamed,) = normalised(response(event__name="gemini_cli.response")).rejected
    assert (renamed.reason, renamed.client) == (Reason.UNRECOGNISED_USAGE, "gemini")


def test_cached_tokens_above_the_input_are_marked_and_the_input_counts() -> None:
    (found,) = normalised(response(cached_content_token_count=2302)).packs[0].events
    assert (found["input_uncached"], found["cache_read"], found["inconsistent"]) == (0, 2301, True)
