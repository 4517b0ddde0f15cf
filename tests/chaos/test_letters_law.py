"""The oracle's check of dead letters: each expected one must exist, response by response, and no others."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.chaos.load import Watched
from tests.chaos.oracle import letters_law

from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.simulator import FleetConfig, Request, Response, SimulatedSession
from tallystream.simulator.model import OtlpTransport

NOW = datetime(2026, 11, 29, tzinfo=UTC)
SESSION = SimulatedSession("codex", "openai", "s-1", None, ())
POISON = {"usage|0|7|0"}


def response(n: int) -> Response:
    return Response(n, SESSION, "gpt-5", None, 0, 100 + n, 20, 3, 0, 50, 10, 0)


def letter(source: str, reason: Reason, record: dict[str, Any], session: str | None = "s-1") -> DeadLetter:
    return DeadLetter(source=source, reason=reason, detail="why", at=NOW, session_id=session, record=record)


def of_worker(n: int) -> DeadLetter:
    one = response(n)
    counts = {
        "input_uncached": one.input_uncached, "cache_read": one.cache_read, "cache_write_5m": one.cache_write_5m,
        "cache_write_1h": 0, "output": one.output,
    }  # fmt: skip
    record = {"session_id": "s-1", "events": [{"model": "gpt-5", **counts}]}
    return letter(f"usage|1|{n}|0", Reason.FROM_THE_FUTURE, record)


def of_gateway(n: int) -> DeadLetter:
    record = {
        "conversation.id": "s-1", "model": "gpt-5", "input_token_count": str(123 + n), "output_token_count": "50",
    }  # fmt: skip
    return letter(f"gateway|c|{n}|0", Reason.NO_TIME, record)


def truth(*answers: int | None) -> Watched:
    """A fleet whose requests contain one response each."""
    found = Watched(FleetConfig(agents=1, requests=100, seed=1, start_ns=int(NOW.timestamp()) * 10**9))
    for n, status in enumerate(answers):
        request = Request(0, 0, "logs", b"", "", OtlpTransport("", chunked=False), False, 1, (response(n),))
        found.begin(request)
        found.end(request, status)
    return found


def judged(*letters: DeadLetter) -> list[str]:
    """Two responses of each fleet were acknowledged; the fate of a third is unknown."""
    never = {Reason.FROM_THE_FUTURE: truth(200, 200, None), Reason.NO_TIME: truth(200, 200, None)}
    poisoned = letter("usage|0|7|0", Reason.INVALID_MESSAGE, {}, None)
    return letters_law({one.source: one for one in (poisoned, *letters)}, POISON, never)


ALL = (of_worker(0), of_worker(1), of_gateway(0), of_gateway(1))


def test_one_letter_for_each_acknowledged_response_passes() -> None:
    assert judged(*ALL) == []
    assert judged(*ALL, of_worker(2), of_gateway(2)) == [], "what was not answered may have been kept"
    twice = of_gateway(1).model_copy(update={"source": "gateway|c|another body|0"})
    assert judged(*ALL, twice) == []


@pytest.mark.parametrize("missing", range(4))
def test_missing_letter_is_found_even_if_its_session_has_others(missing: int) -> None:
    (problem,) = judged(*(one for n, one in enumerate(ALL) if n != missing))
    assert "dead letters: none is" in problem


@pytest.mark.parametrize(
    "other",
    [
        of_worker(3),
        of_gateway(3),
        of_gateway(1).model_copy(update={"source": "x", "reason": Reason.NO_SESSION}),
        of_gateway(1).model_copy(update={"source": "x", "session_id": "s-2"}),
        of_worker(1).model_copy(update={"source": "x", "record": {}}),
        letter("usage|0|8|0", Reason.INVALID_MESSAGE, {}, None),
    ],
    ids=["never sent", "never sent, gateway", "another reason", "another session", "no content", "not poisoned"],
)
def test_letter_about_an_unsent_response_is_found(other: DeadLetter) -> None:
    (problem,) = judged(*ALL, other)
    assert other.source in problem


def test_missing_letter_for_poison_and_unacknowledged_fleet_are_found() -> None:
    (problem,) = letters_law({}, POISON, {})
    assert "usage|0|7|0" in problem
    (problem,) = letters_law({}, set(), {Reason.NO_TIME: truth(None)})
    assert "nothing is proven" in problem
