"""Bodies built from templates decode to their input with the official classes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.oracle import read_logs

from tallystream.simulator.jsonwire import RustJson, ScriptJson
from tallystream.simulator.protobuf import RustProtobuf, ScriptProtobuf
from tallystream.simulator.wire import (
    COMMON,
    EXTRA,
    ISO,
    MARK,
    Hole,
    Pair,
    Value,
    Wire,
    WirePart,
    WireRecord,
    WireScope,
    hole,
)

WIRES = [RustProtobuf(), RustJson(), ScriptProtobuf(), ScriptJson()]
SCRIPT = (ScriptProtobuf, ScriptJson)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
VALUES = st.one_of(
    TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)
)
KINDS = {str: "string", bool: "bool", int: "int", float: "double", tuple: "array", type(None): "empty"}
KEYS = st.from_regex(r"[a-z][a-z0-9_.]{0,30}", fullmatch=True)
NS = st.integers(10**18, 2 * 10**18)


EVENT: tuple[Pair | WirePart, ...] = (("event.timestamp", Hole(ISO, 24)), hole(MARK), hole(COMMON))


@pytest.mark.parametrize("wire", WIRES, ids=["rust-protobuf", "rust-json", "script-protobuf", "script-json"])
@given(
    own=st.dictionaries(KEYS, VALUES, max_size=6),
    listed=st.lists(TEXT, max_size=3),
    common=st.dictionaries(KEYS, VALUES, min_size=1, max_size=4),
    late=st.dictionaries(KEYS, VALUES, min_size=1, max_size=4),
    times=st.lists(NS, min_size=3, max_size=3),
    trace=st.binary(min_size=16, max_size=16).filter(any),
    traced=st.booleans(),
    body=TEXT | st.just(Hole(EXTRA, 15)) | st.none(),
)
def test_encoded_records_decode_to_their_input(
    wire: Wire, own: dict[str, Value], listed: list[str], common: dict[str, Value], late: dict[str, Value],
    times: list[int], trace: bytes, traced: bool, body: str | Hole | None,
) -> None:  # fmt: skip
    script = isinstance(wire, SCRIPT)
    if script:
        own = own | {"listed": tuple(listed), "nothing": None}
    call = "call_0123456789"
    records = [
        WireRecord(
            wire.attributes([*own.items(), ("call_id", Hole(EXTRA, len(call))), *EVENT]), traced, "first", body=body
        ),
        WireRecord(wire.attributes(list(own.items())), False, "second", (5, "DEBUG")),
    ]
    template = wire.template(records)
    shared = [wire.between.join(wire.attribute(k, v) for k, v in common.items()), wire.identifier(trace)]
    shared.append(wire.identifier(trace[:8]))
    iso = b"2026-11-21T19:40:50.632Z"
    marks = [wire.attribute("number", number) for number in (7, 7_000_000)]
    values = [wire.time(times[0]), iso, wire.head(template.sizes[0] + len(shared[0]) + len(marks[0])), marks[0]]
    values += [wire.time(times[1]), b"", wire.head(template.sizes[1]), b""]
    run = template.render([*values, *shared, call.encode()])
    # A record whose own attributes are encoded as a whole, like the one with tokens.
    last = wire.template([WireRecord(wire.attributes([hole(EXTRA), *EVENT]), False, "third")])
    given = wire.between.join(wire.attribute(k, v) for k, v in late.items())
    head = wire.head(last.sizes[0] + len(shared[0]) + len(marks[1]) + len(given))
    third = last.render([wire.time(times[2]), iso, head, marks[1], *shared, given])

    scopes = [(WireScope("one", "1.2"), [run]), (WireScope("two"), [third])]
    read = read_logs(wire.logs(wire.resource([("team", "a%b")]), scopes), wire.content_type)

    def typed(pairs: dict[str, Value]) -> list[tuple[str, str, Value]]:
        return [(key, KINDS[type(value)], value) for key, value in pairs.items()]

    def end(number: int) -> list[tuple[str, str, Value]]:
        return [("event.timestamp", "string", iso.decode()), ("number", "int", number), *typed(common)]

    assert [record.attributes for record in read] == [
        [*typed(own), ("call_id", "string", call), *end(7)],
        typed(own),
        [*typed(late), *end(7_000_000)],
    ]
    assert [record.observed_ns for record in read] == times
    assert [record.time_ns for record in read] == (times if script else [0, 0, 0])
    assert [record.name or None for record in read] == ([None] * 3 if script else ["first", "second", "third"])
    assert [record.scope for record in read] == ["one", "one", "two"]
    assert [record.trace_id for record in read] == [trace if traced else b"", b"", b""]
    assert read[0].body == (call if isinstance(body, Hole) else body)
    assert all(record.resource == {"team": "a%b"} for record in read)
