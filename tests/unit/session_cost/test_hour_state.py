"""Rules of a session-hour's state."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.session_hours import Shelf

from tallystream.agents.session_cost import counted, event_ids, leb128
from tallystream.agents.session_cost import sums as s
from tallystream.agents.session_cost.event_ids import MAX_IDS, SEAL_BYTES
from tallystream.agents.session_cost.hour_state import Outcome, State, Window, apply, is_late, to_row
from tallystream.agents.session_cost.parse import Event
from tallystream.agents.session_cost.state_rows import is_head, load, load_buckets, public_row, version_of
from tallystream.schemas.errors import Reason, UnfitError
from tallystream.schemas.hours import HOUR_MS, HOUR_NS, hour_iso
from tallystream.schemas.rows import SessionHourCost

HOUR = 498_000
KEY = f"codex-7f3a|s%7C1|{hour_iso(HOUR)}".encode()
START = HOUR * HOUR_NS
ATTRIBUTIONS = ("{}", '{"team":"a"}', '{"repo":"r","team":"b"}')


@st.composite
def made(draw: st.DrawFn) -> tuple[Event, int | None, str, bool]:
    """Draw an event, its cost, its attribution and whether it is late."""
    output = draw(st.integers(0, 2**30))
    plain, read, write_5m, write_1h = (draw(st.integers(0, 2**30)) for _ in range(4))
    event: Event = (
        draw(st.integers(0, 2**64 - 1)),
        START + draw(st.integers(0, HOUR_NS - 1)),
        draw(st.sampled_from(("gpt-5-codex", "o3", "m"))),
        draw(st.sampled_from((None, "flex"))),
        draw(st.sampled_from((None, "fast"))),
        plain,
        read,
        write_5m,
        write_1h,
        output,
        draw(st.integers(0, output)),
        draw(st.integers(0, 5)),
        draw(st.one_of(st.none(), st.integers(0, 10**18))),
        0,
        draw(st.booleans()),
    )
    cost = draw(st.one_of(st.none(), st.integers(0, 10**20)))
    return event, cost, draw(st.sampled_from(ATTRIBUTIONS)), draw(st.booleans())


Made = tuple[Event, int | None, str, bool]
many = st.lists(made(), min_size=1, max_size=30, unique_by=lambda m: m[0][0])


def fold(state: State, events: list[Made]) -> Counter[Outcome]:
    return Counter(apply(state, event, cost, "book", attribution, late) for event, cost, attribution, late in events)


def fresh() -> State:
    return State("codex", "openai")


@given(many, st.randoms(use_true_random=False))
def test_totals_ignore_order_and_copies(events: list[Made], rng: random.Random) -> None:
    one, other = fresh(), fresh()
    fold(one, events)
    shuffled = events + rng.choices(events, k=len(events))
    rng.shuffle(shuffled)
    outcomes = fold(other, shuffled)
    assert one.buckets == other.buckets
    assert one.ids.seen == other.ids.seen
    assert outcomes == {Outcome.COUNTED: len(events), Outcome.DUPLICATE: len(events)}
    assert (one.duplicates, other.duplicates) == (0, len(events))


@given(many)
def test_sums_equal_the_added_events(events: list[Made]) -> None:
    state = fresh()
    fold(state, events)
    total = [sum(column) for column in zip(*state.buckets.values(), strict=True)]
    assert total[s.INPUT] == sum(event[5] for event, *_ in events)
    assert total[s.READ] == sum(event[6] for event, *_ in events)
    assert total[s.WRITE_5M] == sum(event[7] for event, *_ in events)
    assert total[s.WRITE_1H] == sum(event[8] for event, *_ in events)
    assert total[s.OUTPUT] == sum(event[9] for event, *_ in events)
    assert total[s.REASONING] == sum(event[10] for event, *_ in events)
    assert total[s.TOOL] == sum(event[11] for event, *_ in events)
    assert total[s.REQUESTS] == len(events)
    assert total[s.COST] == sum(cost or 0 for _, cost, *_ in events)
    assert total[s.UNPRICED] == sum(cost is None for _, cost, *_ in events)
    assert total[s.REPORTED] == sum(event[12] or 0 for event, *_ in events)
    assert total[s.REPORTS] == sum(event[12] is not None for event, *_ in events)
    assert total[s.LATE] == sum(late for *_, late in events)
    assert total[s.INCONSISTENT] == sum(event[14] for event, *_ in events)


@given(many, st.integers(0, 2**62))
def test_dumped_state_is_loaded_unchanged(events: list[Made], version: int) -> None:
    state = fresh()
    fold(state, events)
    state.version = version
    shelf = Shelf()
    shelf.put(KEY, state)
    raw, back, again = shelf.rows[KEY], shelf.get(KEY), Shelf()
    again.rows = dict(shelf.rows)
    again.put(KEY, back)
    assert again.rows == shelf.rows, "nothing else is written again"
    assert version_of(raw) == version
    assert load_buckets(KEY, raw, shelf.rows.get) == state.buckets == back.buckets
    assert (back.ids.seen, list(back.ids), back.ids.floor) == (state.ids.seen, list(state.ids), state.ids.floor)
    assert (back.client, back.provider, back.duplicates) == (state.client, state.provider, state.duplicates)
    assert back.size == state.size
    assert public_row(KEY, raw, shelf.rows.get) == to_row(KEY, state)
    assert [key for key in shelf.rows if is_head(key)] == [KEY]
    assert all(key.rpartition(b"|")[2] == KEY.rpartition(b"|")[2] for key in shelf.rows), "all expire with their hour"
    assert back.carried == {key: tuple(sums) for key, sums in state.buckets.items()}


@given(st.lists(made(), min_size=1, max_size=30), st.sets(st.integers(0, 29)))
def test_reloaded_state_continues_unchanged(events: list[Made], stops: set[int]) -> None:
    """Also what it forgets, which otherwise would depend on the groups in which a message was folded."""
    with blocks_of(4, 2):
        straight, stopping = fresh(), fresh()
        shelf, other = Shelf(), Shelf()
        for n, event in enumerate(events):
            if n in stops:
                shelf.put(KEY, stopping)
                stopping = shelf.get(KEY)
            assert fold(straight, [event]) == fold(stopping, [event])
            assert (stopping.ids.seen, stopping.ids.floor) == (straight.ids.seen, straight.ids.floor)
        shelf.put(KEY, stopping)
        other.put(KEY, straight)
        back, its = shelf.get(KEY), other.get(KEY)
    assert (back.ids.seen, back.ids.floor, back.ids.newest) == (its.ids.seen, its.ids.floor, its.ids.newest)
    assert list(back.ids) == list(its.ids)
    assert to_row(KEY, back) == to_row(KEY, its)


@given(st.lists(st.lists(st.integers(0, 50), max_size=12), max_size=12))
def test_many_ids_are_added_as_one_by_one(messages: list[list[int]]) -> None:
    with blocks_of(4, 2):
        together, single = event_ids.EventIds(), event_ids.EventIds()
        number = 0
        for times in messages:
            idents = range(number, number + len(times))
            number += len(times)
            together.extend(idents, times, max(times, default=-1))
            for ident, at in zip(idents, times, strict=True):
                single.add(ident, at)
            for name in ("seen", "open", "opened", "blocks", "full", "room", "newest", "floor", "fresh", "forgotten"):
                assert getattr(together, name) == getattr(single, name)


@contextmanager
def blocks_of(size: int, number: int) -> Iterator[None]:
    """Set the number of ids in a block and of remembered blocks, without counts for the ids."""
    with (
        mock.patch.object(event_ids, "SEAL_BYTES", 9 * max(size // 2, 1)),
        mock.patch.object(event_ids, "UNIT", size),
        mock.patch.object(event_ids, "MAX_IDS", size * number),
    ):
        yield


@examples(300)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=200))
def test_nothing_counts_twice_even_with_a_small_memory(offers: list[tuple[int, int]]) -> None:
    at = {ident: START + time for ident, time in reversed(offers)}  # an event has one time
    with blocks_of(4, 3):
        state = fresh()
        counted: list[int] = []
        for ident, _ in offers:
            event: Event = (ident, at[ident], "m", None, None, 1, 0, 0, 0, 0, 0, 0, None, 0, False)
            outcome = apply(state, event, 1, "b", "{}", False)
            if ident in counted[-12:]:
                assert outcome is Outcome.DUPLICATE, "the last ids are remembered"
            elif ident in counted:
                assert outcome is not Outcome.COUNTED
            elif outcome is not Outcome.COUNTED:
                assert outcome is Outcome.BEYOND_DEDUPE
                assert len(counted) > 12, "nothing is beyond before anything is forgotten"
            if outcome is Outcome.COUNTED:
                counted.append(ident)
        assert len(counted) == len(set(counted)) == sum(sums[s.REQUESTS] for sums in state.buckets.values())
        assert len(state.ids) < 16
        assert set(state.ids) == state.ids.seen.keys()


def test_at_least_4096_ids_are_remembered_and_memory_is_bounded() -> None:
    assert MAX_IDS >= 4096
    state = fresh()

    def offer(n: int) -> Outcome:
        return apply(state, (n, START + n, "m", None, None, 1, 0, 0, 0, 0, 0, 0, None, 0, False), 1, "b", "{}", False)

    for n in range(20_000):
        assert offer(n) is Outcome.COUNTED
    assert {offer(n) for n in range(20_000 - 4096, 20_000)} == {Outcome.DUPLICATE}
    assert {offer(n) for n in range(10_000)} == {Outcome.BEYOND_DEDUPE}
    assert state.buckets["m", None, None, "b", "{}"][s.REQUESTS] == 20_000
    shelf = Shelf()
    shelf.put(KEY, state)
    assert len(shelf.rows) <= MAX_IDS / (SEAL_BYTES // 9) + 2, "head, bucket, blocks"
    assert len(shelf.rows[KEY]) < 300
    back = shelf.get(KEY)
    assert (back.ids.seen, back.ids.floor, back.ids.newest) == (state.ids.seen, state.ids.floor, state.ids.newest)


def test_long_session_hour_uses_less_than_a_megabyte() -> None:
    """4,096 events in separate groups: the written bytes grow with the changes and not with the existing state."""
    state, shelf = State("codex", "openai"), Shelf()
    rng = random.Random(3)
    key = f"codex-7f3a|{rng.getrandbits(128):032x}|{hour_iso(HOUR)}".encode()
    attribution = orjson.dumps({"repo": "acme/app", "team": "platform", "user": "u_0123456789abcdef"}).decode()
    for n in range(4096):
        event: Event = (
            rng.getrandbits(64), START + n * 10**9, "gpt-5.1-codex", None, None, rng.randrange(20_000),
            rng.randrange(300_000), 0, 0, rng.randrange(4000), rng.randrange(400), 0, None, 0,
            False,
        )  # fmt: skip
        assert apply(state, event, rng.randrange(10**11), "0.2.3-2cbbd406", attribution, False) is Outcome.COUNTED
        state.version = n
        shelf.put(key, state)
    positions = 4096 * len(b"\0position4096 1795300000123")
    assert shelf.written + positions < 1_000_000
    assert shelf.get(key).ids.seen == state.ids.seen


def test_long_session_hour_with_request_ids_uses_less_than_a_megabyte() -> None:
    """The same for requests that may be repeated with other counts, so that the counted values are kept, too."""
    state, shelf = State("claude", "anthropic"), Shelf()
    rng = random.Random(3)
    key = f"claude-7f3a|{rng.getrandbits(128):032x}|{hour_iso(HOUR)}".encode()
    attribution = orjson.dumps({"repo": "acme/app", "team": "platform", "user": "u_0123456789abcdef"}).decode()
    for n in range(4096):
        plain, read, written, output = (rng.randrange(most) for most in (200, 300_000, 5000, 4000))
        cost = plain * 3_000_000 + read * 300_000 + written * 3_750_000 + output * 15_000_000
        event: Event = (
            rng.getrandbits(64), START + n * 10**9, "claude-sonnet-4-5-20250929", None, None, plain, read, written, 0,
            output, 0, 0, cost, 0, False,
        )  # fmt: skip
        assert apply(state, event, cost, "0.2.3-2cbbd406", attribution, False) is Outcome.COUNTED
        state.version = n
        shelf.put(key, state)
    positions = 4096 * len(b"\0position4096 1795300000123")
    assert shelf.written + positions < 1_000_000
    assert shelf.get(key).ids.seen == state.ids.seen


@given(many, st.data())
def test_larger_of_two_records_of_a_request_counts_in_any_order(events: list[Made], data: st.DataObject) -> None:
    rivals: list[Made] = []
    for event, cost, attribution, late in data.draw(st.lists(st.sampled_from(events), max_size=10)):
        more = data.draw(st.integers(0, 9))
        told: Any = (*event[:5], *(more + number for number in event[5:10]), *event[10:])
        rivals.append((told, cost, attribution, late))
    offers: list[Made] = data.draw(st.permutations([*events, *rivals, *events]))
    state, shelf, straight = State("claude", "anthropic"), Shelf(), State("claude", "anthropic")
    with blocks_of(2, 1000):
        for n, offer in enumerate(offers):
            fold(state, [offer])
            if n % 3 == 0:  # it is stored and read again
                shelf.put(KEY, state)
                state = shelf.get(KEY)
    best: dict[int, Made] = {}
    for offer in offers:
        known = best.get(offer[0][0])
        if known is None or size(offer) > size(known):
            best[offer[0][0]] = offer
    fold(straight, list(best.values()))
    assert {key: sums for key, sums in state.buckets.items() if any(sums)} == straight.buckets
    assert state.ids.seen.keys() == best.keys()
    rows = [orjson.loads(to_row(KEY, one))["buckets"] for one in (state, straight)]
    assert sorted(rows[0], key=str) == sorted(rows[1], key=str)


def size(offer: Made) -> tuple[int, tuple[int, ...]]:
    counts = (*offer[0][5:10], offer[0][11])
    return sum(counts), counts


@given(
    st.integers(0, 300), st.lists(st.integers(0, 2**53 - 1), min_size=7, max_size=7),
    st.none() | st.integers(0, 10**40), st.none() | st.integers(0, 10**18), st.tuples(st.booleans(), st.booleans()),
    st.binary(max_size=5),
)  # fmt: skip
def test_counted_records_are_read_as_written(
    place: int, counts: list[int], cost: int | None, reported: int | None, flags: tuple[bool, bool], more: bytes
) -> None:
    raw = counted.pack(place, tuple(counts), cost, reported, flags)
    assert counted.unpack(raw) == (place, tuple(counts), cost, reported, *flags)
    assert counted.end_of(b"12" + raw + more, 2) == 2 + len(raw)


def test_ids_of_an_older_version_are_recognised_without_counts() -> None:
    """A block of ids only, and a head of format 3: copies are recognised by their id, whatever their counts."""
    older = list(range(100, 108))
    block = b"\x10" + bytes(8) + event_ids.NONE + (-1).to_bytes(8, "little", signed=True) + START.to_bytes(8, "little")
    block += b"".join(ident.to_bytes(8, "little") for ident in older)
    bucket = b"\x11" + bytes(8) + orjson.dumps(("claude", "anthropic", "m", None, None, "b", "{}"))
    shelf, numbers = Shelf(), bytearray()
    for number in (3, START + 1 + 1, 1):
        leb128.append(numbers, number)
    numbers += b"bbbbbbbb" + bytes((9, 9, 0, 0, 0, 9, 0, 0, 9, 0, 0, 0, 0))
    prefix, _, hour = KEY.rpartition(b"|")
    shelf.rows = {
        KEY: b"\x03" + (7).to_bytes(8, "little") + b"iiiiiiii" + bytes(numbers) + (200).to_bytes(8, "little"),
        prefix + b"|i" + b"iiiiiiii".hex().encode() + b"|" + hour: block,
        prefix + b"|b" + b"bbbbbbbb".hex().encode() + b"|" + hour: bucket,
    }
    state = shelf.get(KEY)
    assert (state.version, state.duplicates, list(state.ids), state.ids.newest) == (7, 3, [*older, 200], START + 1)
    for ident in [*older, 200]:
        event: Event = (ident, START, "m", None, None, 99, 0, 0, 0, 0, 0, 0, None, 0, False)
        assert apply(state, event, 1, "b", "{}", False) is Outcome.DUPLICATE
    new: Event = (300, START + 5, "m", None, None, 1, 0, 0, 0, 0, 0, 0, None, 0, True)
    assert apply(state, new, 1, "b", "{}", False) is Outcome.COUNTED
    shelf.put(KEY, state)
    back = shelf.get(KEY)
    assert list(back.ids) == [*older, 200, 300]
    (sums,) = back.buckets.values()
    assert (sums[s.REQUESTS], sums[s.INPUT], sums[s.COST], sums[s.INCONSISTENT]) == (10, 10, 10, 1)


def test_broken_block_chain_forgets_ids_and_doubles_nothing() -> None:
    """A missing block makes older events too old to be judged, but never counts them again."""
    state, shelf = fresh(), Shelf()
    events: list[Event] = [
        (n, START + n, "m", None, None, 1, 0, 0, 0, 0, 0, 0, None, 0, False) for n in range(2 * SEAL_BYTES)
    ]
    for n, event in enumerate(events):
        apply(state, event, 1, "b", "{}", False)
        if n % 7 == 0:
            shelf.put(KEY, state)
    shelf.put(KEY, state)
    assert len(state.ids.blocks) > 2
    for name in [name for name in shelf.rows if b"|i" in name]:
        broken = Shelf()
        broken.rows = {key: row for key, row in shelf.rows.items() if key != name}
        back = broken.get(KEY)
        assert {apply(back, event, 1, "b", "{}", False) for event in events} <= {
            Outcome.DUPLICATE, Outcome.BEYOND_DEDUPE,
        }  # fmt: skip


def test_full_row_accepts_no_new_bucket_and_stays_small() -> None:
    state, refused = fresh(), 0
    nasty = '"\\\x01' * 85
    attribution = orjson.dumps({"team": nasty, "repo": nasty}).decode()
    for n in range(3000):
        event: Event = (n, START, f"{n:04d}{nasty}"[:256], nasty, nasty, 1, 0, 0, 0, 0, 0, 0, None, 0, False)
        before = state.size
        outcome = apply(state, event, 2**80, "b", attribution, False)
        if outcome is Outcome.ROW_FULL:
            refused += 1
            assert state.size == before
            assert n not in state.ids.seen
    counted = len(state.buckets)
    assert counted > 50
    assert refused == 3000 - counted
    assert len(to_row(KEY, state)) < 800_000
    shelf = Shelf()
    shelf.put(KEY, state)
    assert shelf.largest < 800_000
    full: Event = (10**6, START, f"0000{nasty}"[:256], nasty, nasty, 1, 0, 0, 0, 0, 0, 0, None, 0, False)
    assert apply(state, full, 1, "b", attribution, False) is Outcome.COUNTED, "buckets that are there go on counting"
    shelf.put(KEY, state)
    assert shelf.get(KEY).size == state.size


def test_sums_larger_than_64_bits_are_kept() -> None:
    state = fresh()
    event: Event = (1, START, "m", None, None, 2**39, 0, 0, 0, 0, 0, 0, 10**21, 0, False)
    apply(state, event, 10**40, "b", "{}", False)
    shelf = Shelf()
    shelf.put(KEY, state)
    assert shelf.get(KEY).buckets == state.buckets
    (bucket,) = orjson.loads(to_row(KEY, state))["buckets"]
    assert bucket["cost_usd"] == str(10**28)
    assert bucket["reported_cost_usd"] == "1000000000"


def test_counts_stop_at_the_readers_limit() -> None:
    sums = s.zero()
    sums[s.REQUESTS], sums[s.INPUT], sums[s.COST] = 3, 2**60, 10**30
    fields = s.to_fields(sums)
    assert fields["input_uncached"] == fields["total_tokens"] == 2**53 - 1
    assert fields["cost_usd"] == str(10**18)


@given(many)
def test_rows_match_their_model(events: list[Made]) -> None:
    state = fresh()
    fold(state, events)
    state.version = 7
    row = SessionHourCost.model_validate_json(to_row(KEY, state), strict=True)
    assert (row.connection_id, row.session_id, row.hour, row.version) == ("codex-7f3a", "s|1", hour_iso(HOUR), [0, 7])
    for bucket in row.buckets:
        counts = bucket.input_uncached + bucket.cache_read + bucket.cache_write_5m + bucket.cache_write_1h
        assert bucket.total_tokens == counts + bucket.output + bucket.tool
        assert (bucket.cost_usd is None) == (bucket.unpriced_requests == bucket.requests)


WEEK = 7 * 24 * HOUR_MS


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**42), st.integers(0, 400 * 24 * HOUR_MS), st.integers(0, 2_562_047))
def test_verdict_depends_only_on_the_message(at: int, append_ms: int, lateness: int, closed: int) -> None:
    window, hour = Window(lateness), at // HOUR_NS
    verdict = window.verdict(at, hour, append_ms, closed)
    too_late = (hour + 1) * HOUR_MS + lateness <= append_ms
    future = at >= (append_ms + 24 * HOUR_MS) * 10**6
    expected = (
        Reason.TOO_LATE if too_late else Reason.FROM_THE_FUTURE if future else Reason.CLOSED if hour < closed else None
    )
    assert verdict is expected
    watermark = window.watermark(append_ms)
    assert (hour_iso(hour).encode() < watermark) == (too_late and hour < window.first_open_hour(append_ms))


@given(st.integers(0, 2**43), st.integers(0, 2**43), st.integers(0, WEEK))
def test_watermarks_rise_with_append_time(one: int, other: int, lateness: int) -> None:
    window = Window(lateness)
    assert (one <= other) <= (window.watermark(one) <= window.watermark(other))


def test_events_at_the_edges_of_an_hour_are_assigned_correctly() -> None:
    window, end = Window(WEEK), (HOUR + 1) * HOUR_MS
    assert window.verdict(START, HOUR, end + WEEK - 1, 0) is None
    assert window.verdict(START, HOUR, end + WEEK, 0) is Reason.TOO_LATE
    assert window.verdict(START, HOUR, HOUR * HOUR_MS - 24 * HOUR_MS + 1, 0) is None
    assert window.verdict(START, HOUR, HOUR * HOUR_MS - 24 * HOUR_MS, 0) is Reason.FROM_THE_FUTURE
    assert window.verdict(START, HOUR, end, HOUR) is None
    assert window.verdict(START, HOUR, end, HOUR + 1) is Reason.CLOSED
    assert not is_late(HOUR, end + HOUR_MS - 1)
    assert is_late(HOUR, end + HOUR_MS)


def test_row_of_another_format_is_refused() -> None:
    shelf = Shelf()
    shelf.put(KEY, fresh())
    with pytest.raises(UnfitError, match="format 9"):
        load(KEY, b"\x09" + shelf.rows[KEY][1:], shelf.rows.get)
