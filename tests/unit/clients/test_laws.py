"""Rules for every normaliser: no unexpected errors, equal results for both encodings, only valid events."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st
from tests.support.otlp_bodies import AT_NS, Attribute, Group, Record, encode, iso

from tallystream.schemas.clients import NORMALISERS, normalise_logs
from tallystream.schemas.errors import Reason
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.packing import messages
from tallystream.schemas.usage import MAX_SESSION_BYTES, UsageBatch

SCOPES = (
    "codex_otel.log_only", "com.anthropic.claude_code.events", "qwen-code", "gemini-cli", "cline", "another",
)  # fmt: skip
EVENTS = tuple(normaliser.event for normaliser in NORMALISERS)
FIELDS = sorted({name for normaliser in NORMALISERS for name in normaliser.fields} | {"user.email", "user.id"})
CONTENT = ("prompt", "arguments", "output", "response", "tool_input", "error.message")
CANARY = "canary-7c1d"

WHOLES = ("input_token_count", "output_token_count", "cache_creation_tokens")
"""Counts that include others."""

often = st.sampled_from([True] * 7 + [False])
counts = st.integers(0, 500) | st.integers(0, 500).map(str)
larger = st.integers(1000, 5000) | st.integers(1000, 5000).map(str)
odd: st.SearchStrategy[Attribute] = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=300)
    | st.binary(max_size=4)
    | st.lists(st.integers(0, 5), max_size=2)
    | st.dictionaries(st.text(max_size=3), st.integers(0, 5), max_size=2)
)
names = st.sampled_from(FIELDS) | st.text(max_size=12) | st.sampled_from(["x_tokens", "tokenCount", "max_tokens"])


@st.composite
def plausible(draw: st.DrawFn, event: str) -> Record:
    """Draw a record such as a client might send, usually a priced one, sometimes with odd values."""
    attributes: list[tuple[str, Attribute]] = [("event.name", event if draw(often) else draw(st.text(max_size=8)))]
    for name in FIELDS:
        if name.endswith(("_count", "_tokens")) and draw(often):
            attributes.append((name, draw(larger if name in WHOLES else counts)))
    attributes += [(key, "s-1") for key in ("conversation.id", "session.id") if draw(often)]
    attributes += [("model", "m"), ("event.timestamp", iso(AT_NS))]
    if not draw(often):
        attributes += draw(st.lists(st.tuples(names, odd), max_size=4))
    attributes += [(name, CANARY) for name in CONTENT]
    time, observed = draw(st.tuples(st.integers(0, 2**64 - 1) | st.just(0), st.integers(0, 2**63 - 1) | st.just(0)))
    return Record(attributes, time, observed, draw(st.sampled_from(["", "ab" * 16])), draw(st.text(max_size=5)))


@st.composite
def group(draw: st.DrawFn) -> Group:
    """Draw records of one client, usually in its own scope."""
    client = draw(st.integers(0, len(EVENTS) - 1))
    records = draw(st.lists(plausible(EVENTS[client]), min_size=1, max_size=4))
    scope = SCOPES[client] if draw(often) else draw(st.sampled_from(SCOPES) | st.text(max_size=5))
    return Group(records, draw(resources), scope)


resources = st.dictionaries(
    st.sampled_from(["user.id", "team", "repo", "env", "session.id"]) | st.text(max_size=5), odd
)
groups = st.lists(group(), max_size=3)


@given(groups)
def test_both_encodings_give_the_same_events(found: list[Group]) -> None:
    first, second = (normalise_logs(encode(found, encoding), encoding) for encoding in Encoding)
    assert orjson.dumps(first) == orjson.dumps(second)
    assert first.records == sum(len(group.records) for group in found)


@given(groups)
def test_events_are_valid_and_contain_no_content(found: list[Group]) -> None:
    result = normalise_logs(encode(found, Encoding.PROTOBUF), Encoding.PROTOBUF)
    for pack in result.packs:
        assert 0 < len(pack.session_id.encode()) <= MAX_SESSION_BYTES
        for _, value in messages(pack, "codex-7f3a", lambda name: name):
            batch = UsageBatch.model_validate_json(value)
            assert batch.model_dump(exclude_none=True) == orjson.loads(value)
            assert all(event.total_tokens > 0 for event in batch.events)
    for rejected in result.rejected:
        assert rejected.reason in Reason
        assert rejected.detail
        assert 0 <= rejected.index < result.records
    assert CANARY not in repr(result)


@given(groups)
def test_same_body_gives_the_same_ids(found: list[Group]) -> None:
    once, twice = (normalise_logs(encode(found, Encoding.JSON), Encoding.JSON) for _ in range(2))
    assert once == twice or orjson.dumps(once) == orjson.dumps(twice)


@given(st.lists(st.tuples(names, odd), max_size=6), st.sampled_from(Encoding), st.sampled_from(SCOPES))
def test_any_record_is_handled_without_an_error(
    attributes: list[tuple[str, Attribute]], encoding: Encoding, scope: str
) -> None:
    for event in EVENTS:
        record = Record([("event.name", event), ("input_token_count", 5), *attributes])
        assert normalise_logs(encode([Group([record], {}, scope)], encoding), encoding).records == 1
