"""Packs become messages that are valid and small enough, without losing or doubling an event."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from tallystream.schemas import keys
from tallystream.schemas.clients import Pack
from tallystream.schemas.packing import messages
from tallystream.schemas.usage import MAX_BYTES, MAX_EVENTS, UsageBatch


def pack(number: int, width: int = 5, session: str = "s-1", **attribution: str) -> Pack:
    events = [
        {"event_id": f"{place:016x}", "occurred_at": place, "model": "m" * width, "input_uncached": 1}
        for place in range(number)
    ]
    return Pack("codex", "openai", session, attribution, events)


@examples(30)
@given(st.integers(1, 1500), st.sampled_from([1, 256, 2000]))
def test_split_messages_contain_every_event_once_in_order(number: int, width: int) -> None:
    found = list(messages(pack(number, width), "codex-7f3a", str.upper))
    assert {key for key, _ in found} == {keys.join("codex-7f3a", "s-1")}
    assert all(len(value) <= MAX_BYTES for _, value in found)
    batches = [UsageBatch.model_validate_json(value) for _, value in found]
    assert all(len(batch.events) <= MAX_EVENTS for batch in batches)
    assert [event.event_id for batch in batches for event in batch.events] == [f"{n:016x}" for n in range(number)]


def test_only_the_user_is_replaced() -> None:
    wanted = pack(1, user="alice", team="payments")
    ((key, value),) = messages(wanted, "codex-7f3a", lambda name: f"u_{len(name)}")
    assert orjson.loads(value)["attribution"] == {"user": "u_5", "team": "payments"}
    assert wanted.attribution["user"] == "alice", "a pack is not changed by sending it"
    assert key == b"codex-7f3a|s-1"


def test_pseudonyms_are_not_requested_without_a_user() -> None:
    def nobody(name: str) -> str:
        raise AssertionError(name)

    assert len(list(messages(pack(1, team="payments"), "c", nobody))) == 1


def test_session_id_cannot_change_the_structure_of_a_key() -> None:
    ((key, _),) = messages(pack(1, session="a|b%7C"), "codex-7f3a", str)
    assert keys.split(key) == ("codex-7f3a", "a|b%7C")
