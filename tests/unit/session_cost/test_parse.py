"""`parse` compared with the models, and with hostile messages."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.support.examples import examples

from tallystream.agents.session_cost.dead_letters import invalid_message, refused_event
from tallystream.agents.session_cost.errors import InvalidMessageError
from tallystream.agents.session_cost.parse import ParsedBatch, parse
from tallystream.schemas import keys
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.money import reported_pico
from tallystream.schemas.usage import MAX_BYTES, MAX_EVENT_TOKENS, Attribution, UsageBatch

EVENT = {
    "event_id": "0123456789abcdef",
    "occurred_at": 1_795_290_579_000_000_000,
    "model": "gpt-5-codex",
    "input_uncached": 10,
    "cache_read": 20,
    "cache_write_5m": 0,
    "cache_write_1h": 0,
    "output": 7,
    "reasoning": 3,
    "tool": 0,
}
BATCH: dict[str, Any] = {
    "connection_id": "codex-7f3a",
    "client": "codex",
    "provider": "openai",
    "session_id": "s|1",
    "attribution": {"team": "platform", "repo": "acme/app"},
    "events": [EVENT],
}

short = st.text(max_size=40)
number = st.one_of(st.integers(0, 5000), st.sampled_from([-1, 2**40, 2**53 - 1, 2**53, 2**63, 2**64, 0]))
junk = st.one_of(st.none(), st.booleans(), number, st.floats(allow_nan=False), short, st.just([]), st.just({}))
money = st.one_of(
    st.sampled_from(["0", "0.00012", "1.2e-05", "-1", "NaN", "Infinity", "1e999999", "x", "", "9" * 70, "999999999.9"]),
    st.decimals(0, 1000, places=6).map(str),
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "event_id": st.one_of(
        st.integers(0, 2**64 - 1).map("{:016x}".format),
        st.sampled_from(
            ["0123456789ABCDEF", "123", "0x23456789abcdef", " 123456789abcdef", "0123_456789abcde", "١" * 16]
        ),
    ),
    "occurred_at": st.one_of(st.integers(0, 2**63 - 1), number),
    "model": short,
    **dict.fromkeys(
        ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "tool"), number
    ),
    "turn_id": st.one_of(st.none(), short),
    "service_tier": st.one_of(st.none(), short),
    "speed": st.one_of(st.none(), short),
    "reported_cost_usd": st.one_of(st.none(), money),
    "basis": st.sampled_from([None, "aggregate", "guess"]),
    "seen_by": st.one_of(st.none(), st.lists(short, max_size=10)),
    "prompt": short,
}


@st.composite
def events(draw: st.DrawFn) -> Any:
    """Draw an event with no or few invalid fields."""
    event: dict[str, Any] = dict(EVENT)
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=4)):
        event[name] = draw(FIELDS[name])
    for name in draw(st.lists(st.sampled_from(sorted(EVENT)), max_size=2)):
        event[name] = draw(st.one_of(FIELDS[name], FIELDS[name], junk))
    for name in draw(st.lists(st.sampled_from(sorted(EVENT)), max_size=1)):
        event.pop(name, None)
    return draw(st.sampled_from([event] * 9 + [draw(junk)]))


@st.composite
def batches(draw: st.DrawFn) -> Any:
    batch: dict[str, Any] = {**BATCH, "events": draw(st.lists(events(), min_size=0, max_size=3))}
    for name in draw(st.lists(st.sampled_from([*BATCH, "prompt"]), max_size=1)):
        batch[name] = draw(
            st.one_of(junk, short, st.dictionaries(st.sampled_from([*Attribution.model_fields, "x"]), junk, max_size=3))
        )
    for name in draw(st.lists(st.sampled_from(sorted(BATCH)), max_size=1)):
        if draw(st.integers(0, 5)) == 0:
            batch.pop(name, None)
    return batch


def key_of(batch: Any) -> bytes:
    connection, session = batch.get("connection_id"), batch.get("session_id")
    return keys.join(connection, session) if isinstance(connection, str) and isinstance(session, str) else b"?"


def accepted(batch: object) -> ParsedBatch | None:
    """Return the result of `parse` for a valid message."""
    try:
        parsed = parse(key_of(batch), orjson.dumps(batch, option=orjson.OPT_PASSTHROUGH_DATETIME))
    except InvalidMessageError:
        return None
    return None if parsed.bad else parsed


@examples(1000)
@given(batches())
def test_parser_accepts_exactly_what_the_models_accept(batch: object) -> None:
    try:
        value = orjson.dumps(batch)
    except TypeError:  # a number that our writers cannot write
        return
    try:
        model: UsageBatch | None = UsageBatch.model_validate_json(value, strict=True)
    except ValidationError:
        model = None
    if model is not None and any(event.total_tokens >= MAX_EVENT_TOKENS for event in model.events):
        model = None  # an additional limit of the worker
    parsed = accepted(batch)
    assert (parsed is None) == (model is None)
    if parsed is None or model is None:
        return
    assert (parsed.connection_id, parsed.session_id, parsed.client, parsed.provider) == (
        model.connection_id,
        model.session_id,
        model.client,
        model.provider,
    )
    given_attribution = {k: v for k, v in model.attribution.model_dump().items() if v}
    assert orjson.loads(parsed.attribution) == given_attribution
    assert parsed.team == (model.attribution.team or None)
    for index, (event, plain) in enumerate(zip(model.events, parsed.events, strict=True)):
        usd = event.reported_cost_usd
        assert plain == (
            int(event.event_id, 16),
            event.occurred_at,
            event.model,
            event.service_tier or None,
            event.speed or None,
            event.input_uncached,
            event.cache_read,
            event.cache_write_5m,
            event.cache_write_1h,
            event.output,
            event.reasoning,
            event.tool,
            None if usd is None else reported_pico(usd),
            index,
            event.inconsistent is True,
        )


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from([*BATCH, *EVENT]), st.text(max_size=5)), inner, max_size=6),
    ),
    max_leaves=20,
)


@examples(300)
@given(st.one_of(st.binary(max_size=200), anything.map(orjson.dumps)), st.one_of(st.none(), st.binary(max_size=20)))
def test_parser_raises_only_invalid_message(value: bytes, key: bytes | None) -> None:
    try:
        parse(key, value)
    except InvalidMessageError as exc:
        DeadLetter.model_validate_json(invalid_message(3, 5, 1_795_290_579_000, value, exc.message)[1])


@examples(300)
@given(st.lists(anything, min_size=1, max_size=4))
def test_bad_events_do_not_affect_good_ones_and_are_kept(rubbish: list[Any]) -> None:
    batch = {**BATCH, "events": [*rubbish, EVENT]}
    parsed = parse(key_of(batch), orjson.dumps(batch))
    assert [event[13] for event in parsed.events] == [len(rubbish)]
    assert [index for index, _ in parsed.bad] == list(range(len(rubbish)))


def test_deeply_nested_message_becomes_a_dead_letter() -> None:
    deep = b"[" * 400 + b"]" * 400
    value = orjson.dumps({**BATCH, "events": ["DEEP"]}).replace(b'"DEEP"', deep)
    parsed = parse(key_of(BATCH), value)
    ((index, detail),) = parsed.bad
    letter = DeadLetter.model_validate_json(invalid_message(0, 1, 0, value, detail, index)[1])
    assert (letter.source, letter.size) == ("usage|0|1|0", len(value))


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"session_id": "s" * 257}, "session_id exceeds 256 bytes"),
        ({"session_id": ""}, "session_id is empty"),
        ({"connection_id": "é" * 129}, "connection_id exceeds 256 bytes"),
        ({"client": "c" * 257}, "client exceeds 256 bytes"),
        ({"events": []}, "events is not a list of 1 to 512"),
        ({"events": [EVENT] * 513}, "events is not a list of 1 to 512"),
        ({"attribution": {"team": "t" * 15_000}}, "attribution exceeds 14336 bytes"),
        ({"attribution": {"team": 1}}, "attribution has a value that is not a string"),
        ({"prompt": "secret"}, "the message has fields that UsageBatch does not have"),
        ({"provider": None}, "provider is not a text"),
    ],
)
def test_errors_name_the_fault_without_the_value(change: dict[str, Any], detail: str) -> None:
    batch = BATCH | change
    with pytest.raises(InvalidMessageError) as caught:
        parse(key_of(batch), orjson.dumps(batch))
    assert caught.value.message == detail


def test_message_under_another_key_is_refused() -> None:
    with pytest.raises(InvalidMessageError, match="key is not connection_id"):
        parse(b"codex-7f3a|s|1", orjson.dumps(BATCH))
    assert parse(b"codex-7f3a|s%7C1", orjson.dumps(BATCH)).events


def test_oversized_message_is_refused_without_decoding() -> None:
    with pytest.raises(InvalidMessageError, match="exceeds"):
        parse(b"k", b"[" * (MAX_BYTES + 1))


def test_missing_counts_are_zero() -> None:
    event = {"event_id": "00000000000000ff", "occurred_at": 5, "model": "m", "output": 9}
    (plain,) = parse(key_of(BATCH), orjson.dumps(BATCH | {"events": [event]})).events
    assert plain == (255, 5, "m", None, None, 0, 0, 0, 0, 9, 0, 0, None, 0, False)


def test_refused_event_is_kept_completely_and_can_be_replayed() -> None:
    event = EVENT | {"service_tier": "flex", "turn_id": "t", "reported_cost_usd": "0.5"}
    parsed = parse(key_of(BATCH), orjson.dumps(BATCH | {"events": [EVENT, event]}))
    key, value = refused_event(7, 12, 1_795_290_579_123, parsed, 1, Reason.TOO_LATE)
    letter = DeadLetter.model_validate_json(value)
    assert (key, letter.source, letter.reason) == (b"usage|7|12|1", "usage|7|12|1", Reason.TOO_LATE)
    assert letter.at.isoformat() == "2026-11-21T19:49:39.123000+00:00"
    assert "(hour 2026-11-21T19:00:00Z)" in letter.detail
    again = UsageBatch.model_validate(letter.record)
    assert again.model_dump(exclude_none=True) == BATCH | {"events": [event]}
