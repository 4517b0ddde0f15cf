"""Usage that no normaliser recognises must be reported, but not records that only look similar."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.support.otlp_bodies import AT_NS, Group, Record, codex_noise, codex_record, codex_response, encode

from tallystream.schemas.clients import NORMALISERS, normalise_logs
from tallystream.schemas.clients.unrecognised import is_token_name
from tallystream.schemas.errors import Reason
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.otlp.records import HINT

BOTH = pytest.mark.parametrize("encoding", list(Encoding))


def renamed(record: Record, names: dict[str, str]) -> Record:
    return Record([(names.get(name, name), value) for name, value in record.attributes], observed_ns=AT_NS)


@BOTH
@pytest.mark.parametrize(
    "record",
    [
        codex_response().having(event__name="codex.response_completed"),
        codex_response().having(event__name="claude_code.api_request"),
        codex_response().having(event__name=None, event__kind=None),
        replace(codex_response().having(event__name=None), event_name="codex.response_completed"),
        renamed(codex_response(), {"input_token_count": "input_tokens"}),
        renamed(codex_response(), {"input_token_count": "usage.in", "output_token_count": "outputTokens"}),
        codex_response(whole=0, cached=0, written=0, output=0, reasoning=0).having(total_tokens=7),
        codex_record("codex.response", "s-1", "m", AT_NS, **{"gen_ai.usage.input_tokens": 5}),
        codex_record("codex.response", "s-1", "m", AT_NS, tokens="5"),
        codex_record("codex.response", "s-1", "m", AT_NS, tokens=0.5),
    ],
)
def test_renamed_client_fields_are_reported(record: Record, encoding: Encoding) -> None:
    result = normalise_logs(encode([Group([*codex_noise(), record])], encoding), encoding)
    assert not result.packs
    (lost,) = result.rejected
    assert (lost.reason, lost.index, lost.session_id) == (Reason.UNRECOGNISED_USAGE, len(codex_noise()), "s-1")
    assert lost.record["service.name"] == "codex_exec"
    assert any(is_token_name(name) for name in lost.record)


@BOTH
def test_unknown_client_is_reported(encoding: Encoding) -> None:
    record = Record([("event.name", "agent.reply"), ("usage.prompt_tokens", 10)], observed_ns=AT_NS)
    (lost,) = normalise_logs(encode([Group([record], {}, "some.agent")], encoding), encoding).rejected
    assert (lost.reason, lost.client, lost.session_id) == (Reason.UNRECOGNISED_USAGE, None, None)
    assert lost.record["usage.prompt_tokens"] == 10
    assert "agent.reply" in lost.detail


@BOTH
@pytest.mark.parametrize(
    "attributes",
    [
        {"auto_compact_token_limit": 6000},
        {"gen_ai.request.max_tokens": 4096},
        {"context_window_tokens": 200_000},
        {"auth.env_refresh_token_url_override_present": True},
        {"token": "123456"},
        {"refresh_token": 123456},
        {"input_tokens": 0},
        {"input_tokens": "0"},
        {"input_tokens": -5},
        {"input_tokens": "many"},
        {"input_tokens": True},
        {"input_tokens": None},
        {"output": "5 tokens, token_count 7"},
    ],
)
def test_records_without_usage_are_ignored(attributes: dict[str, object], encoding: Encoding) -> None:
    record = codex_record("codex.other", "s-1", "m", AT_NS, **attributes)  # type: ignore[arg-type] # any attribute
    result = normalise_logs(encode([Group([record])], encoding), encoding)
    assert (result.packs, result.rejected) == ([], [])


def test_dead_letter_is_small() -> None:
    counts = {f"n{number}_tokens": number for number in range(1, 500)}
    record = codex_record("codex.other" + "x" * 5000, "s" * 5000, "m", AT_NS, **{"a" * 5000 + "_tokens": 5}, **counts)
    (lost,) = normalise_logs(encode([Group([record])], Encoding.JSON), Encoding.JSON).rejected
    assert len(str(lost)) < 4000


@given(st.from_regex(r"[a-zA-Z0-9._-]{0,12}[tT]oken(s|[._-]?[cC]ount|_usage)?s?[a-zA-Z0-9._-]{0,4}", fullmatch=True))
def test_byte_search_finds_every_name(name: str) -> None:
    if is_token_name(name):
        assert HINT.search(name.encode())


def test_byte_search_finds_the_counts_of_every_client() -> None:
    for normaliser in NORMALISERS:
        counts = [name for name in normaliser.fields if is_token_name(name)]
        assert len(counts) >= 4
        assert all(HINT.search(name.encode()) for name in counts)


@BOTH
def test_body_of_one_word_is_treated_as_content(encoding: Encoding) -> None:
    """Except if it is an event name that a client writes there."""
    record = Record([("input_tokens", 5)], observed_ns=AT_NS)
    for word, kept in (("hunter2", False), ("claude_code.model_request", True)):
        body = encode([Group([record], {}, "x")], encoding)
        if encoding is Encoding.JSON:
            text = b'"body": {"stringValue": "%b"}, "attributes": [' % word.encode()
            body = body.replace(b'"attributes": [', text)
        else:
            request = ExportLogsServiceRequest.FromString(body)
            request.resource_logs[0].scope_logs[0].log_records[0].body.string_value = word
            body = request.SerializeToString()
        (lost,) = normalise_logs(body, encoding).rejected
        assert (word in repr(lost)) == kept
