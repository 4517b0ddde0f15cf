"""The truth equals an independent reading of the bodies, and its comparison finds every difference."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.oracle import read_logs, rows, same_money, usage

from tallystream.schemas.errors import UsageError
from tallystream.simulator import Fleet, FleetConfig, Request, Truth, compare

START = 1_795_290_000_000_000_000
CONFIG = FleetConfig(
    agents=10, requests=240, seed=75, start_ns=START, client="mixed", duplicates=0.2, late=0.1, resend=0.1
)
REQUESTS = list(Fleet(CONFIG))
USED = [usage(read_logs(q.body, q.content_type)) if q.signal == "logs" else [] for q in REQUESTS]
"""The responses that a plain reader finds in each of them."""
Row = dict[str, Any]


def play(answer: Callable[[int, Request], int | None], config: FleetConfig = CONFIG) -> Truth:
    truth = Truth(config)
    for number, request in enumerate(REQUESTS if config is CONFIG else Fleet(config)):
        truth.begin(request)
        truth.end(request, answer(number, request))
    truth.final = True
    return truth


def read(requests: list[Request]) -> list[Row]:
    """Return the rows that a plain reader computes from the requests' bodies."""
    used = {u: u for q in requests if q.signal == "logs" for u in usage(read_logs(q.body, q.content_type))}
    return rows(used)


@pytest.fixture(scope="module")
def exact() -> list[Row]:
    return read(REQUESTS)


def keyed(found: list[Row]) -> dict[tuple[Any, ...], Row]:
    return {
        (
            row["client"],
            row["session_id"],
            row["hour"],
            row["model"],
            row["service_tier"],
            *sorted(row["attribution"].items()),
        ): same_money(row)
        for row in found
    }


def test_truth_equals_the_bodies_if_all_are_acknowledged(exact: list[Row]) -> None:
    document = play(lambda *_: 200).document()
    assert keyed(document["acknowledged"]["rows"]) == keyed(exact)
    totals = document["acknowledged"]["totals"]
    assert totals["requests"] == 240
    assert Decimal(totals["cost_usd"]) == sum(Decimal(row["cost_usd"] or 0) for row in exact)
    assert Decimal(totals["reported_cost_usd"]) == sum(Decimal(row["reported_cost_usd"] or 0) for row in exact) > 0
    assert {row["client"] for row in exact} == {"codex", "claude", "gemini"}
    assert {row["client"] for row in exact if row["reported_cost_usd"]} == {"claude"}
    money = dict.fromkeys(("cost_usd", "reported_cost_usd"))
    assert document["unknown"] == {"totals": dict.fromkeys(set(totals) - set(money), 0) | money, "rows": []}
    assert 0 < totals["unpriced_requests"] < 240
    assert {row["cost_usd"] for row in exact if row["model"] == "qwen3-coder-inhouse"} == {None}


def test_exact_rows_have_no_differences(exact: list[Row]) -> None:
    assert compare(play(lambda *_: 200), exact, alone=True) == []


@pytest.mark.parametrize(
    ("field", "by"),
    [("input_uncached", 1), ("output", -1), ("requests", 1), ("total_tokens", 1), ("unpriced_requests", 1),
     ("cache_read", -1), ("reasoning", 1), ("tool", 1), ("cache_write_5m", 1), ("cost_usd", "0.000000000001"),
     ("cost_usd", "-0.000000000001"), ("cache_write_1h", 1), ("reported_cost_usd", "0.000000000001")],
)  # fmt: skip
def test_difference_of_one_token_or_pico_dollar_is_found(exact: list[Row], field: str, by: int | str) -> None:
    planted = copy.deepcopy(exact)
    row = next(row for row in planted if row["cost_usd"] is not None and row["reported_cost_usd"] is not None)
    row[field] = row[field] + by if isinstance(by, int) else str(Decimal(row[field]) + Decimal(by))
    (difference,) = compare(play(lambda *_: 200), planted)
    assert difference.kind == "wrong"
    changed = field.replace("_usd", "_pico").replace("_cost_", "_")
    assert [name for name, want in difference.wanted.items() if difference.found[name] != want] == [changed]
    assert row["session_id"] in str(difference)
    assert changed in str(difference)


def test_missing_extra_and_foreign_rows_are_found(exact: list[Row]) -> None:
    truth = play(lambda *_: 200)
    assert [d.kind for d in compare(truth, exact[1:])] == ["missing"]
    moved = [{**exact[0], "hour": "2001-01-01T00:00:00Z"}, *exact[1:]]
    assert sorted(d.kind for d in compare(truth, moved)) == ["missing", "unexpected"]
    theirs = [{**exact[0], "client": "emacs"}, *exact[1:]]
    assert sorted(d.kind for d in compare(truth, theirs)) == ["missing", "unexpected"]
    other = {**exact[0], "session_id": "somebody else's"}
    assert compare(truth, [*exact, other]) == []
    assert [d.kind for d in compare(truth, [*exact, other], alone=True)] == ["foreign"]
    assert [d.kind for d in compare(truth, [exact[0], *exact])] == ["wrong"]


def test_rows_differing_in_book_user_or_connection_are_added_up(exact: list[Row]) -> None:
    truth = play(lambda *_: 200)
    row = next(row for row in exact if row["requests"] > 1 and row["cost_usd"])
    part = {
        **row,
        "requests": 1,
        "output": 0,
        "cost_usd": "0",
        "reported_cost_usd": None,
        "attribution": row["attribution"] | {"user": "u_1"},
    }
    for name in (
        "input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "reasoning", "tool", "total_tokens",
        "unpriced_requests",
    ):  # fmt: skip
        part[name] = 0
    rest = {**row, "requests": row["requests"] - 1, "attribution": row["attribution"] | {"user": None, "team": None}}
    rest["attribution"] |= row["attribution"]
    assert compare(truth, [part, rest, *(other for other in exact if other is not row)]) == []


def test_attribution_is_compared_unless_left_out(exact: list[Row]) -> None:
    truth = play(lambda *_: 200)
    wrong = [{**row, "attribution": row["attribution"] | {"team": "thieves"}} for row in exact]
    assert {d.kind for d in compare(truth, wrong)} == {"missing", "unexpected"}
    assert compare(truth, wrong, attribution=False) == []


def test_response_is_acknowledged_if_any_of_its_bodies_is() -> None:
    """For copies and resent bodies, a single 200 is enough, before or after a refusal."""
    config = replace(CONFIG, resend=1.0)
    first_lost = play(lambda _, request: 200 if request.resent else None, config)
    second_lost = play(lambda _, request: 503 if request.resent else 200, config)
    for truth in (first_lost, second_lost):
        document = truth.document()
        assert document["acknowledged"]["totals"]["requests"] == 240
        assert document["unknown"]["rows"] == []
        assert compare(truth, read(list(Fleet(config)))) == []
    assert set(first_lost.http) == {"200", "none"}
    assert set(second_lost.http) == {"200", "503"}


OUTCOMES = st.lists(st.sampled_from([200, 200, 503, None]), min_size=len(REQUESTS), max_size=len(REQUESTS))


@examples(12)
@given(outcomes=OUTCOMES, data=st.data())
def test_unknown_responses_may_count_once_or_not_at_all(outcomes: list[int | None], data: st.DataObject) -> None:
    truth = play(lambda number, _: outcomes[number])
    alike = Counter(replace(u, at_ns=u.at_ns // 10**6, known_by=()) for u in {u for used in USED for u in used})
    assert set(alike.values()) == {1}, (
        "of two with the same numbers nobody can say which one counted: take another seed"
    )
    acknowledged = {u for used, outcome in zip(USED, outcomes, strict=True) if outcome == 200 for u in used}
    everything = {u for used in USED for u in used}
    unknown = sorted(everything - acknowledged, key=repr)
    counted = [u for u in unknown if data.draw(st.booleans())]
    assert compare(truth, rows([*acknowledged, *counted]), alone=True) == []
    assert truth.document()["unknown"]["totals"]["requests"] == len(unknown)
    if counted:
        twice = compare(truth, rows([*acknowledged, *counted, counted[0]]))
        assert [d.key.session_id for d in twice] == [counted[0].session_id]
    lost = data.draw(st.sampled_from(sorted(acknowledged, key=repr)))
    short = compare(truth, rows([*(u for u in acknowledged if u != lost), *counted]))
    assert [d.key.session_id for d in short] == [lost.session_id]


def test_partly_counted_unknown_response_is_a_difference() -> None:
    truth = play(lambda *_: None)
    found = read(REQUESTS)
    assert compare(truth, found, alone=True) == []
    assert compare(truth, []) == []
    found[0]["output"] -= 1
    assert [d.kind for d in compare(truth, found)] == ["wrong"]


def test_bounds_are_checked_with_many_unknown_responses() -> None:
    config = replace(CONFIG, agents=1, requests=400, duplicates=0, late=0, encoding="protobuf")
    truth = play(lambda *_: 503, config)
    found = read(list(Fleet(config)))
    big = max(found, key=lambda row: int(row["requests"]))
    assert compare(truth, found) == []
    big["output"] += 1
    assert len(compare(truth, found)) == 1


@pytest.mark.parametrize("final", [True, False])
def test_truth_file_is_read_back(tmp_path: Path, final: bool) -> None:
    truth = Truth(CONFIG)
    half = REQUESTS[: len(REQUESTS) // 2]
    for number, request in enumerate(half):
        truth.begin(request)
        if number % 7:
            truth.end(request, (200, 503, 200)[number % 3])
    truth.final = final
    file = tmp_path / "truth.json"
    truth.write(file, rows=False)
    loaded = Truth.load(file)
    assert keyed(loaded.document()["acknowledged"]["rows"]) == keyed(truth.document()["acknowledged"]["rows"])
    assert loaded.http == truth.http
    assert loaded.sent == truth.sent
    known = truth.document()["unknown"]["totals"]["requests"]
    rest = 240 - truth.document()["acknowledged"]["totals"]["requests"]
    # Until the file is final, further responses may have been sent.
    assert loaded.document()["unknown"]["totals"]["requests"] == (known if final else rest)
    truth.write(file)
    assert Truth.load(file).document() == truth.document() or not final
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99}', "[]"])
def test_invalid_truth_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "truth.json"
    file.write_text(text)
    with pytest.raises(UsageError):
        Truth.load(file)
    with pytest.raises(UsageError):
        Truth.load(tmp_path / "none")
