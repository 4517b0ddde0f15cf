"""What is spliced together from templates decodes, by the official classes, to what was put in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.oracle import read_logs

from tallystream.simulator.jsonwire import Json
from tallystream.simulator.protobuf import Protobuf
from tallystream.simulator.wire import EXTRA, Hole, Record, Value, Wire, hole

WIRES = [Protobuf(), Json()]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
VALUES = st.one_of(
    TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)
)
KINDS = {str: "string", bool: "bool", int: "int", float: "double"}
KEYS = st.from_regex(r"[a-z][a-z0-9_.]{0,30}", fullmatch=True)
NS = st.integers(10**18, 2 * 10**18)


@pytest.mark.parametrize("wire", WIRES, ids=["protobuf", "json"])
@given(
    own=st.dictionaries(KEYS, VALUES, max_size=6),
    tail=st.dictionaries(KEYS, VALUES, min_size=1, max_size=4),
    late=st.dictionaries(KEYS, VALUES, min_size=1, max_size=4),
    times=st.lists(NS, min_size=3, max_size=3),
    trace=st.binary(min_size=16, max_size=16).filter(any),
    traced=st.booleans(),
    body=st.none() | TEXT,
)
def test_records_decode_to_what_was_put_in(
    wire: Wire, own: dict[str, Value], tail: dict[str, Value], late: dict[str, Value], times: list[int], trace: bytes,
    traced: bool, body: str | None,
) -> None:  # fmt: skip
    call = "call_0123456789"
    records = [
        Record(wire.attributes([*own.items(), ("call_id", Hole(EXTRA, len(call)))]), "first", traced=traced, body=body),
        Record(wire.attributes(list(own.items())), "second", (5, "DEBUG"), event=False, traced=False),
    ]
    template = wire.template(records)
    shared = [wire.between.join(wire.attribute(k, v) for k, v in tail.items()), wire.identifier(trace)]
    shared.append(wire.identifier(trace[:8]))
    iso = b"2026-11-21T19:40:50.632Z"
    values = [wire.time(times[0]), iso, wire.head(template.sizes[0] + len(shared[0]))]
    values += [wire.time(times[1]), b"", wire.head(template.sizes[1])]
    run = template.render([*values, *shared, call.encode()])
    # A record whose own attributes come as a whole, as the one with tokens does.
    last = wire.template([Record(hole(EXTRA), "third", traced=False)])
    given = wire.between.join(wire.attribute(k, v) for k, v in late.items())
    head = wire.head(last.sizes[0] + len(shared[0]) + len(given))
    third = last.render([wire.time(times[2]), iso, head, *shared, given])

    read = read_logs(wire.logs(wire.resource([("team", "a%b")]), [("one", [run]), ("two", [third])]), wire.content_type)

    def typed(pairs: dict[str, Value]) -> list[tuple[str, str, Value]]:
        return [(key, KINDS[type(value)], value) for key, value in pairs.items()]

    end = [("event.timestamp", "string", iso.decode()), *typed(tail)]
    assert [record.attributes for record in read] == [
        [*typed(own), ("call_id", "string", call), *end],
        typed(own),
        [*typed(late), *end],
    ]
    assert [record.observed_ns for record in read] == times
    assert [record.name for record in read] == ["first", "second", "third"]
    assert [record.scope for record in read] == ["one", "one", "two"]
    assert [record.trace_id for record in read] == [trace if traced else b"", b"", b""]
    assert read[0].body == body
    assert all(record.resource == {"team": "a%b"} for record in read)
