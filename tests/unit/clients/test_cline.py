"""Cline: disjoint counts, its name in the body, missing values as text, and what repeats the same usage."""

from __future__ import annotations

from typing import Any

import orjson
from tests.support.otlp_bodies import AT_NS

from tallystream.schemas.clients import LogsResult, normalise_logs
from tallystream.schemas.otlp import Encoding

ATTRIBUTES: dict[str, Any] = {
    "ulid": "01JZT", "tokensIn": 120, "tokensOut": 80, "cacheWriteTokens": 10, "cacheReadTokens": 2000,
    "totalCost": 0.0125, "model": "claude-sonnet-4-5", "provider": "anthropic", "agentKind": "root",
    "user_id": "usr-1", "organization_id": "org-1", "distinct_id": "d",
}  # fmt: skip


def sent(*records: tuple[str, dict[str, Any]]) -> LogsResult:
    """Return what a request of these (body, attributes) gives, in the form of OpenTelemetry's JavaScript SDK."""

    def value(given: Any) -> dict[str, Any]:
        kind = {str: "stringValue", float: "doubleValue", int: "intValue"}[type(given)]
        return {kind: given}

    made = [
        {
            "timeUnixNano": str(AT_NS),
            "body": {"stringValue": body},
            "attributes": [{"key": name, "value": value(given)} for name, given in attributes.items()],
        }
        for body, attributes in records
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "cline"}}]}
    scopes = [{"scope": {"name": "cline"}, "logRecords": made}]
    body = orjson.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": scopes}]})
    return normalise_logs(body, Encoding.JSON)


def test_request_becomes_one_event() -> None:
    result = sent(("task.created", {"ulid": "01JZT"}), ("task.tokens", ATTRIBUTES))
    (pack,) = result.packs
    assert (pack.client, pack.provider, pack.session_id) == ("cline", "anthropic", "01JZT")
    assert (pack.attribution["user"], pack.attribution["agent"]) == ("usr-1", "root")
    assert pack.attribution["account"].startswith("a_")
    (event,) = pack.events
    names = ("input_uncached", "cache_read", "cache_write_5m", "output", "reported_cost_usd")
    assert [event[name] for name in names] == [120, 2000, 10, 80, "0.0125"]
    assert result.rejected == []


def test_repeated_usage_of_a_turn_does_not_count() -> None:
    turn = ATTRIBUTES | {"source": "assistant", "mode": "act"}
    result = sent(("task.tokens", ATTRIBUTES), ("task.conversation_turn", turn))
    assert [len(pack.events) for pack in result.packs] == [1]
    assert result.rejected == []
    nameless = sent(("task.tokens", ATTRIBUTES), ("", turn))
    assert [len(pack.events) for pack in nameless.packs] == [1]
    assert [lost.reason.value for lost in nameless.rejected] == ["unrecognised_usage"]


def test_missing_values_written_as_text_are_recognised() -> None:
    given = ATTRIBUTES | {"cacheReadTokens": "undefined", "cacheWriteTokens": "null", "provider": "undefined"}
    (pack,) = sent(("task.tokens", given | {"totalCost": "undefined", "model": "gpt-5"})).packs
    assert pack.provider == "openai"
    assert (pack.events[0]["input_uncached"], pack.events[0]["cache_read"]) == (120, 0)
    assert "reported_cost_usd" not in pack.events[0]


def test_copy_is_the_same_event_and_an_invalid_count_a_dead_letter() -> None:
    result = sent(
        ("task.tokens", ATTRIBUTES), ("task.tokens", ATTRIBUTES), ("task.tokens", ATTRIBUTES | {"tokensIn": -1})
    )
    ids = [event["event_id"] for pack in result.packs for event in pack.events]
    assert len(set(ids)) == 1
    assert [lost.reason.value for lost in result.rejected] == ["invalid_counts"]
    assert "usr-1" not in repr(result.rejected[0].record)
