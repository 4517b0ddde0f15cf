"""Codex: which records count, their token counts, and which become dead letters."""

from __future__ import annotations

import pytest
from tests.support.otlp_bodies import (
    AT_NS,
    SECRET,
    Group,
    Record,
    codex_noise,
    codex_record,
    codex_response,
    encode,
    iso,
)

from tallystream.schemas.clients import LogsResult, Rejected, normalise_logs
from tallystream.schemas.errors import Reason
from tallystream.schemas.otlp import Encoding

BOTH = pytest.mark.parametrize("encoding", list(Encoding))


def normalised(*records: Record, resource: dict[str, object] | None = None) -> LogsResult:
    """Normalise the records in both encodings, which must agree."""
    groups = [Group(records) if resource is None else Group(records, resource)]  # type: ignore[arg-type] # any attribute
    first, second = (normalise_logs(encode(groups, encoding), encoding) for encoding in Encoding)
    assert first == second
    return first


def event(*records: Record) -> dict[str, object]:
    """Return the one event the records give."""
    result = normalised(*records)
    assert not result.rejected
    ((found,),) = [pack.events for pack in result.packs]
    return found


def rejected(*records: Record) -> Rejected:
    """Return the one rejected record; nothing else was counted."""
    result = normalised(*records)
    assert not result.packs
    (found,) = result.rejected
    return found


def test_response_becomes_one_event() -> None:
    result = normalised(*codex_noise(), codex_response(), *codex_noise())
    (pack,) = result.packs
    assert (pack.client, pack.provider, pack.session_id) == ("codex", "openai", "s-1")
    assert pack.attribution == {"env": "lab", "agent": "codex_exec"}
    assert result.records == 2 * len(codex_noise()) + 1
    assert not result.rejected
    assert pack.events == [
        {
            "event_id": "b8710feeeae04881",
            "occurred_at": AT_NS,
            "model": "gpt-5.1-codex",
            "input_uncached": 500,
            "cache_read": 400,
            "cache_write_5m": 100,
            "cache_write_1h": 0,
            "output": 90,
            "reasoning": 30,
            "tool": 0,
        }
    ]


def test_codex_event_identity_is_stable() -> None:
    """With a changed identity, events that are sent again across an upgrade would count twice."""
    assert event(codex_response())["event_id"] == "b8710feeeae04881"
    assert event(codex_response().having(service_tier="priority"))["event_id"] == "b8710feeeae04881"


@pytest.mark.parametrize(
    "other",
    [
        codex_response("s-2"),
        codex_response(model="gpt-5"),
        codex_response(at_ns=AT_NS + 1),
        codex_response(whole=1001),
        codex_response(cached=401),
        codex_response(written=101),
        codex_response(output=91),
        codex_response(reasoning=31),
        codex_response().having(ttft_ms=13),
        codex_response().having(duration_ms="5"),
        codex_response().having(event__timestamp=iso(AT_NS + 10**6)),
        Record(codex_response().attributes, observed_ns=AT_NS, trace_id="ff" * 16),
        Record(codex_response().attributes, time_ns=AT_NS, observed_ns=AT_NS, trace_id=codex_response().trace_id),
    ],
)
def test_responses_that_differ_have_different_identities(other: Record) -> None:
    assert event(other)["event_id"] != event(codex_response())["event_id"]


def test_counts_as_ints_or_strings_are_the_same_response() -> None:
    ints = codex_response().having(input_token_count=1000, output_token_count=90, tool_token_count=1090)
    strings = codex_response().having(
        cached_token_count="400", cache_write_token_count="100", reasoning_token_count="30"
    )
    assert event(ints) == event(strings) == event(codex_response())


def test_missing_codex_counts_are_zero() -> None:
    old = codex_response(whole=10, output=5).having(
        cached_token_count=None, cache_write_token_count=None, reasoning_token_count=None
    )
    found = event(old)
    assert [found[name] for name in ("input_uncached", "cache_read", "cache_write_5m", "reasoning")] == [10, 0, 0, 0]


def test_websocket_warm_up_is_not_counted() -> None:
    warm_up = codex_response(whole=0, cached=0, written=0, output=0, reasoning=0)
    result = normalised(warm_up)
    assert (result.packs, result.rejected) == ([], [])


def test_completed_response_without_counts_is_not_counted() -> None:
    result = normalised(*codex_noise())
    assert (result.packs, result.rejected) == ([], [])


def test_service_tier_is_kept_and_effort_is_not() -> None:
    found = event(codex_response().having(service_tier="priority", model_reasoning_effort="low"))
    assert found["service_tier"] == "priority"
    assert "low" not in found.values()


@pytest.mark.parametrize(
    ("model", "slug", "found"), [("a", "b", "a"), (None, "b", "b"), (None, None, "unknown"), (" ", "", "unknown")]
)
def test_model_name_is_kept_as_sent(model: str | None, slug: str | None, found: str) -> None:
    assert event(codex_response().having(model=model, slug=slug))["model"] == found


@pytest.mark.parametrize(
    ("time_ns", "timestamp", "observed_ns", "at"),
    [
        (AT_NS, iso(AT_NS + 1), AT_NS + 5, AT_NS),
        (0, "2026-11-21T19:46:43.048Z", AT_NS + 5, 1_795_290_403_048_000_000),
        (0, "2026-11-21T19:46:43Z", AT_NS + 5, 1_795_290_403_000_000_000),
        (0, "2026-11-21T20:46:43.123456789+01:00", AT_NS + 5, 1_795_290_403_123_456_789),
        (0, "2026-11-21T19:46:43.048", AT_NS + 5, 1_795_290_403_048_000_000),
        (0, "1969-12-31T23:59:59Z", AT_NS + 5, AT_NS + 5),
        (0, "yesterday", AT_NS + 5, AT_NS + 5),
        (0, 17, AT_NS + 5, AT_NS + 5),
        (0, None, AT_NS + 5, AT_NS + 5),
        # other units than nanoseconds: milliseconds, microseconds, seconds, .NET's ticks, NTP's epoch
        (AT_NS // 10**6, iso(AT_NS), AT_NS + 5, AT_NS),
        (AT_NS // 10**3, None, AT_NS + 5, AT_NS + 5),
        (AT_NS // 10**6, None, AT_NS // 10**6, AT_NS),
        (AT_NS // 10**3, None, 0, AT_NS),
        (AT_NS // 10**9, None, 0, AT_NS),
        (AT_NS // 100 + 621_355_968_000_000_000, None, AT_NS, AT_NS),
        (AT_NS + 2_208_988_800 * 10**9, iso(AT_NS), 5, AT_NS),
        (2**63, iso(AT_NS), 5, AT_NS),
        (2**64 - 1, None, AT_NS, AT_NS),
        (0, AT_NS // 10**6, 5, AT_NS),
        (0, str(AT_NS // 10**9), 5, AT_NS),
    ],
)
def test_event_time_falls_back_to_timestamp_and_observed_time(
    time_ns: int, timestamp: str | int | None, observed_ns: int, at: int
) -> None:
    record = codex_response().having(event__timestamp=timestamp)
    assert event(Record(record.attributes, time_ns, observed_ns))["occurred_at"] == at


@pytest.mark.parametrize(("time_ns", "observed_ns"), [(0, 0), (2**63, 5), (0, 2**64 - 1), (1, 1)])
def test_response_without_a_time_becomes_a_dead_letter(time_ns: int, observed_ns: int) -> None:
    found = rejected(Record(codex_response().having(event__timestamp=None).attributes, time_ns, observed_ns))
    assert (found.reason, found.client, found.session_id) == (Reason.NO_TIME, "codex", "s-1")
    assert found.record["input_token_count"] == "1000"


@pytest.mark.parametrize(
    ("session", "says"),
    [
        (None, "does not name a session"),
        ("", "does not name a session"),
        (True, "does not name a session"),
        ([7], "does not name a session"),
        ("é" * 129, "258"),
    ],
)
def test_response_without_a_valid_session_becomes_a_dead_letter(session: str | int | None, says: str) -> None:
    found = rejected(codex_response().having(conversation__id=session))
    assert (found.reason, found.client) == (Reason.NO_SESSION, "codex")
    assert says in found.detail
    assert (found.record["input_token_count"], found.record["output_token_count"]) == ("1000", "90")
    assert found.session_id is None or len(found.session_id.encode()) <= 256


def test_longest_allowed_session_id_is_accepted() -> None:
    (pack,) = normalised(codex_response("é" * 128)).packs
    assert pack.session_id == "é" * 128


@pytest.mark.parametrize(
    "changes",
    [
        {"input_token_count": "-1"},
        {"input_token_count": -1},
        {"input_token_count": "many"},
        {"input_token_count": ""},
        {"input_token_count": "1_000"},
        {"input_token_count": "1000.5"},
        {"input_token_count": "1e30"},
        {"input_token_count": "１０００"},
        {"input_token_count": 1000.5},
        {"input_token_count": float("nan")},
        {"input_token_count": float("inf")},
        {"input_token_count": True},
        {"input_token_count": 2**53},
        {"input_token_count": "9" * 5000},
        {"input_token_count": [1000]},
        {"output_token_count": "-1"},
    ],
)
def test_impossible_counts_become_dead_letters_with_the_record(
    changes: dict[str, int | str | float | list[int]],
) -> None:
    # NaN is not equal to itself, so the two encodings cannot be compared
    record = codex_response().having(**changes)
    found = next(iter(normalise_logs(encode([Group([record])], Encoding.PROTOBUF), Encoding.PROTOBUF).rejected))
    assert (found.reason, found.client, found.session_id) == (Reason.INVALID_COUNTS, "codex", "s-1")
    assert found.detail
    assert found.record["output_token_count"] == changes.get("output_token_count", "90")
    assert "user.email" not in found.record
    assert len(str(found.record)) < 3000


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"reasoning_token_count": -1}, (500, 400, 100, 90, 0)),
        ({"reasoning_token_count": "x"}, (500, 400, 100, 90, 0)),
        ({"reasoning_token_count": 91}, (500, 400, 100, 90, 90)),
        ({"cached_token_count": 901}, (0, 901, 99, 90, 30)),
        ({"cache_write_token_count": 601}, (0, 400, 600, 90, 30)),
        ({"cached_token_count": 1001, "cache_write_token_count": 0}, (0, 1000, 0, 90, 30)),
        ({"input_token_count": "0"}, (0, 0, 0, 90, 30)),
    ],
)
def test_parts_exceeding_their_total_are_marked_and_the_total_counts(
    changes: dict[str, int | str], counts: tuple[int, ...]
) -> None:
    found = event(codex_response().having(**changes))
    names = ("input_uncached", "cache_read", "cache_write_5m", "output", "reasoning")
    assert tuple(found[name] for name in names) == counts
    assert found["inconsistent"] is True
    assert "inconsistent" not in event(codex_response())


def test_whole_double_is_accepted_as_a_count() -> None:
    assert event(codex_response().having(input_token_count=1000.0)) == event(codex_response())


@pytest.mark.parametrize(
    ("resource", "record", "user"),
    [
        ({}, {}, None),
        ({}, {"user.account_id": "acct-1"}, "acct-1"),
        ({}, {"user.account_id": "acct-1", "user.email": "a@example.com"}, "a@example.com"),
        ({"user.id": "alice"}, {"user.email": "a@example.com"}, "alice"),
    ],
)
def test_user_set_by_the_operator_takes_precedence(
    resource: dict[str, object], record: dict[str, str], user: str | None
) -> None:
    (pack,) = normalised(codex_response().having(**record), resource=resource).packs
    assert pack.attribution.get("user") == user


@BOTH
def test_resources_sessions_and_users_give_separate_messages(encoding: Encoding) -> None:
    one, two = codex_response(at_ns=AT_NS), codex_response(at_ns=AT_NS + 1)
    groups = [
        Group([one, codex_response("s-2")], {"team": "a"}),
        Group([two], {"team": "a", "service.name": "codex_cli_rs"}),
        Group([codex_response(at_ns=AT_NS + 2)], {"team": "b"}),
        Group([codex_response(at_ns=AT_NS + 3).having(user__email="x@example.com")], {"team": "b"}),
    ]
    packs = normalise_logs(encode(groups, encoding), encoding).packs
    assert {pack.attribution.pop("agent") for pack in packs} == {"codex_exec"}
    assert [(pack.session_id, pack.attribution, len(pack.events)) for pack in packs] == [
        ("s-1", {"team": "a"}, 2),
        ("s-2", {"team": "a"}, 1),
        ("s-1", {"team": "b"}, 1),
        ("s-1", {"team": "b", "user": "x@example.com"}, 1),
    ]


@BOTH
def test_bad_record_does_not_affect_the_others(encoding: Encoding) -> None:
    bad = codex_response().having(input_token_count="many")
    result = normalise_logs(encode([Group([codex_response(), bad, codex_response("s-2")])], encoding), encoding)
    assert [pack.session_id for pack in result.packs] == ["s-1", "s-2"]
    assert [found.index for found in result.rejected] == [1]


@BOTH
def test_content_is_not_kept(encoding: Encoding) -> None:
    leaky = [
        codex_record("codex.renamed", "s-1", "m", AT_NS, prompt=SECRET, output=SECRET, output_token_count=5),
        codex_response().having(prompt=SECRET, arguments=SECRET, output=SECRET),
        codex_response().having(prompt=SECRET, output=SECRET, input_token_count="x"),
        codex_response().having(prompt=SECRET, output=SECRET, conversation__id=None),
    ]
    result = normalise_logs(encode([Group([*codex_noise(), *leaky], {"note": SECRET})], encoding), encoding)
    assert (len(result.packs), len(result.rejected)) == (1, 3)
    assert SECRET not in repr(result)
