"""Repricing: rows come to what the new book would have made of the usage, and nothing but costs changes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.repricing import MODELS, Repriced, books

from tallystream.agents.session_cost.reprice_plan import Scope, Unchanged
from tallystream.schemas.errors import Reason
from tallystream.schemas.hours import HOUR_NS, hour_from_iso
from tallystream.schemas.rows import SUM_COUNTS

HOUR = hour_from_iso("2026-11-21T13:00:00Z")
START = HOUR * HOUR_NS
with TemporaryDirectory() as folder:
    OLD, NEW = books(Path(folder))
Event = dict[str, Any]


def usage(session: str, client: str, events: list[Event], team: str | None = None) -> tuple[bytes, bytes]:
    batch = {"connection_id": "c", "client": client, "provider": "openai", "session_id": session, "events": events}
    return f"c|{session}".encode(), orjson.dumps(batch | ({"attribution": {"team": team}} if team else {}))


def event(ident: int, model: str = "sized", minute: int = 0, size: int = 1, **more: Any) -> Event:
    at = {"event_id": f"{ident:016x}", "occurred_at": START + minute * 60 * 10**9}
    return {**at, "model": model, "input_uncached": size, "output": 1, **more}


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw a message. Ids repeat: with other counts the larger counts, in the hour and bucket of either."""
    session, client = draw(st.sampled_from((("s1", "claude"), ("s1", "claude"), ("s2", "codex"))))
    events = []
    for _ in range(draw(st.integers(1, 6))):
        ident = draw(st.integers(1, 30))
        size, model = draw(st.sampled_from((1, 1, 6, 20, 21))), draw(st.sampled_from(MODELS))
        minute = draw(st.integers(-60, 70))
        if client == "codex":  # its ids are made of the counts and the time
            ident = crc32(f"{size} {model} {minute}".encode())
        more = draw(st.sampled_from(({}, {}, {"reported_cost_usd": "0.5"}, {"service_tier": "default"})))
        events.append(event(ident, model, minute, size, **more))
    return usage(session, client, events, draw(st.sampled_from((None, "a"))))


def tokens(sums: dict[tuple[str, ...], list[int]]) -> dict[tuple[str, ...], list[int]]:
    """Return the sums without costs and without what has no price."""
    kept = [at for at, name in enumerate(SUM_COUNTS) if name != "unpriced_requests"]
    return {name: [numbers[at] for at in kept] + numbers[-1:] for name, numbers in sums.items()}


@given(st.data())
@examples(150)
def test_rows_come_to_the_new_book_whatever_happens_meanwhile(data: st.DataObject) -> None:
    """Corrections that are late, repeated or computed twice, new usage, larger records, other books, crashes."""
    run, computed = Repriced(OLD), []
    for _ in range(data.draw(st.integers(1, 25), label="steps")):
        match data.draw(
            st.sampled_from(("usage", "usage", "usage", "fold", "commit", "plan", "send", "torn", "crash"))
        ):
            case "usage":
                run.append(*data.draw(messages()))
            case "fold":
                run.step(data.draw(st.integers(1, 4)))
            case "commit":
                run.settle()
            case "plan":
                computed += run.plan(data.draw(st.sampled_from((NEW, NEW, OLD)))).corrections
            case "send" if computed:
                run.send(data.draw(st.sampled_from(computed)))
            case "torn":
                run.step()
                run.commit(stored=data.draw(st.integers(0, 6)))
            case "crash":
                run.crash(data.draw(st.sampled_from((OLD, NEW))))
            case _:
                pass
    run.settle()
    without = run.as_if(OLD)
    counts = {name: sums[:-2] for name, sums in run.sums().items()}
    unpriced = 9
    for ours, theirs in ((counts, without.sums()),):
        assert ours.keys() == theirs.keys()
        for name, sums in ours.items():
            assert [*sums[:unpriced], *sums[unpriced + 1 :]] == [
                *theirs[name][:unpriced],
                *theirs[name][unpriced + 1 : -2],
            ]
    run.reprice(NEW)
    assert run.sums() == run.as_if(NEW).sums()
    assert run.hours() == run.as_if(NEW).hours()
    run.crash(NEW)
    for _ in range(data.draw(st.integers(0, 4), label="messages after")):
        run.append(*data.draw(messages()))
    run.settle()
    assert run.sums() == run.as_if(NEW).sums(), "a larger record takes back what was counted by the new book"
    assert run.hours() == run.as_if(NEW).hours()
    assert {letter.reason for letter in run.worker.letters} <= {Reason.REPRICE_REFUSED, Reason.CONFLICTING_COUNTS}


def test_each_request_has_the_price_of_its_own_size_and_time() -> None:
    run = Repriced(OLD)
    run.append(*usage("s", "codex", [event(1, size=10), event(2, size=11), event(3, minute=30, size=11)]))
    run.append(*usage("s", "codex", [event(4, "found"), event(5, "dropped"), event(6, "same")]))
    run.settle()
    (before,) = run.worker.rows.values()
    assert run.reprice(NEW) == 1
    (row,) = run.worker.rows.values()
    found = {bucket["model"]: bucket for bucket in row["buckets"]}
    # in millionths: 10 * 3 + 5, 11 * 7 + 11, 11 * 13 + 17
    assert found["sized"]["cost_usd"] == "0.000283"
    assert (found["found"]["cost_usd"], found["found"]["unpriced_requests"]) == ("0.000002", 0)
    assert (found["dropped"]["cost_usd"], found["dropped"]["unpriced_requests"]) == (None, 1)
    books_of = {name: bucket["book"] for name, bucket in found.items()}
    assert books_of == {"sized": NEW.hash, "found": NEW.hash, "dropped": NEW.hash, "same": OLD.hash}
    assert found["same"] in before["buckets"], "what costs the same is left as it is"
    assert run.reprice(NEW) == 0, "a second time changes nothing"


def test_new_usage_does_not_disturb_a_correction_and_a_repeated_one_changes_nothing() -> None:
    run = Repriced(OLD)
    run.append(*usage("s", "codex", [event(1)]))
    run.settle()
    (correction,) = run.plan(NEW).corrections
    run.crash(NEW)  # the worker was restarted with the new book
    run.append(*usage("s", "codex", [event(2)]))
    run.send(correction)
    run.send(correction)
    run.settle()
    ((bucket,),) = [row["buckets"] for row in run.worker.rows.values()]
    assert (bucket["requests"], bucket["cost_usd"], bucket["book"]) == (2, "0.000016", NEW.hash)
    (letter,) = run.worker.letters
    assert letter.reason is Reason.REPRICE_REFUSED
    assert "another correction" in letter.detail
    assert letter.session_id == "s"


@pytest.mark.parametrize("requests", [1, 40], ids=["inline", "compact"])
def test_a_correction_is_refused_although_its_buckets_look_the_same_again(requests: int) -> None:
    """A worker with the old book, which was started again, counts equal requests after the first correction."""
    run = Repriced(OLD)
    run.append(*usage("s", "codex", [event(n) for n in range(requests)]))
    run.settle()
    (correction,) = run.plan(NEW).corrections
    run.send(correction)
    run.settle()
    run.crash(OLD)
    run.append(*usage("s", "codex", [event(100 + n, minute=40) for n in range(requests)]))
    run.send(correction)
    run.settle()
    assert {bucket["book"] for row in run.worker.rows.values() for bucket in row["buckets"]} == {OLD.hash, NEW.hash}
    assert run.reprice(NEW) == 1
    assert run.sums() == run.as_if(NEW).sums()


def test_rows_are_compared_with_the_usage_that_they_contain() -> None:
    """More usage of the hour is in the topic already, and more corrections of it are."""
    run = Repriced(OLD)
    run.append(*usage("s", "codex", [event(1)]))
    run.settle()
    run.append(*usage("s", "codex", [event(2)]))
    run.send(run.plan(NEW).corrections[0])
    run.crash(NEW)
    run.settle()
    assert not run.plan(NEW).corrections
    assert run.sums() == run.as_if(NEW).sums()


def test_a_correction_is_refused_when_another_request_has_taken_the_place_of_one() -> None:
    """The sums of the buckets are the same again, but the later request has another price."""
    run = Repriced(OLD)
    run.append(*usage("s", "claude", [event(1)]))
    run.settle()
    (correction,) = run.plan(NEW).corrections
    run.crash(NEW)
    run.append(*usage("s", "claude", [event(1, size=9)]))
    run.settle()
    run.crash(OLD)
    run.append(*usage("s", "claude", [event(2, minute=40)]))
    run.send(correction)
    run.settle()
    assert [letter.reason for letter in run.worker.letters][-1:] == [Reason.REPRICE_REFUSED]
    run.reprice(NEW)
    assert run.sums() == run.as_if(NEW).sums()


def test_a_correction_of_changed_requests_is_refused() -> None:
    run = Repriced(OLD)
    run.append(*usage("s", "claude", [event(1), event(2)]))
    run.settle()
    (correction,) = run.plan(NEW).corrections
    run.append(*usage("s", "claude", [event(1, size=9)]))
    run.send(correction)
    run.settle()
    assert [
        letter.detail.partition(" (")[0] for letter in run.worker.letters if letter.reason is Reason.REPRICE_REFUSED
    ] == ["its requests have changed since their costs were computed"]
    assert {bucket["book"] for row in run.worker.rows.values() for bucket in row["buckets"]} == {OLD.hash}


@pytest.mark.parametrize(
    "change",
    [
        {"hour": "2026-99-21T13:00:00Z"}, {"costs": {"1": "2"}}, {"moves": []}, {"prompt": "secret"},
        {"session_id": "other"},
    ],
)  # fmt: skip
def test_what_is_not_a_correction_becomes_a_dead_letter_and_costs_nothing(change: dict[str, Any]) -> None:
    run = Repriced(OLD)
    run.append(*usage("s", "codex", [event(1)]))
    run.settle()
    (correction,) = run.plan(NEW).corrections
    run.append(correction.key, orjson.dumps(orjson.loads(correction.value) | change), correction=True)
    run.append(correction.key, b"{", correction=True)
    before = run.worker.rows.copy()
    run.settle()
    assert run.worker.rows == before
    assert {letter.reason for letter in run.worker.letters} == {Reason.INVALID_MESSAGE}
    assert "secret" not in str(run.worker.letters)


def test_what_cannot_be_priced_again_keeps_its_cost_and_is_reported() -> None:
    run = Repriced(OLD)
    run.append(*usage("s", "codex", [event(1)]))
    run.append(*usage("s", "codex", [event(2, "found")]))
    run.append(*usage("old", "codex", [event(3, minute=-60 * 24 * 6)]))
    run.settle()
    gone = run.plan(NEW, log=run.log[1:])  # retention has removed the first message
    assert {why: (sums.requests, sums.cost) for why, sums in gone.left.items()} == {Unchanged.NO_USAGE: (1, 3_000_000)}
    assert len(gone.corrections) == 2
    later = run.plan(NEW, days_later=2)
    assert {why: (sums.requests, sums.other_cost) for why, sums in later.left.items()} == {
        Unchanged.CLOSED: (1, 8_000_000)
    }
    assert len(later.corrections) == 1
    only = Scope(HOUR, HOUR + 1, frozenset({"found"}))
    assert [key.model for key in run.plan(NEW, only).sums] == ["found"]
    assert not run.plan(NEW, Scope(HOUR + 1)).sums


def test_an_hour_that_forgets_the_ids_of_a_client_with_request_ids_is_left() -> None:
    run = Repriced(OLD)
    for first in range(0, 5_500, 500):
        run.append(*usage("s", "claude", [event(n, minute=n // 100) for n in range(first, first + 500)]))
    run.settle()
    plan = run.plan(NEW)
    assert not plan.corrections
    assert plan.left[Unchanged.TOO_MANY].requests == 5_500
    assert plan.left[Unchanged.TOO_MANY].other_cost > plan.left[Unchanged.TOO_MANY].cost
