"""The fuzz targets: each decoder, and the whole path from a body to rows. A target takes bytes and returns nothing.

An exception that the decoder does not document is a finding, and so is a rule that does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import orjson
from tests.support.shown_records import shown

from tallystream.agents.pricing.book import Book
from tallystream.agents.session_cost import counted, dead_letters, event_ids, state_rows
from tallystream.agents.session_cost.errors import InvalidMessageError
from tallystream.agents.session_cost.hour_state import CONFLICT, COUNTED, DUPLICATE, REPLACED, State, apply, to_row
from tallystream.agents.session_cost.parse import parse
from tallystream.schemas import exact
from tallystream.schemas.calls import CallBatch
from tallystream.schemas.clients.renormalise import renormalise
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import InvalidBodyError, InvalidRecordError
from tallystream.schemas.hours import HOUR_NS, hour_iso
from tallystream.schemas.otlp import LIMITS, Encoding, json_logs, protobuf_logs, protobuf_scan
from tallystream.schemas.otlp.limits import DecodingBudget
from tallystream.schemas.otlp.records import TOKENS
from tallystream.schemas.rows import SessionHourCost
from tallystream.schemas.usage import UsageBatch
from tallystream.streams.gateway.decompress import decompress
from tallystream.streams.gateway.errors import RequestRefusedError
from tallystream.streams.gateway.ingest import Messages, decode, digest_of
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import SystemClock

LIMIT = 1 << 20
CONNECTION = "fuzz-1"
CODINGS = ("", "gzip", "deflate", "zstd")
SIGNALS = ("logs", "metrics", "traces", None)
TOPICS = Topics("fuzz", 2)
MESSAGES = Messages(TOPICS, lambda user: f"u_{len(user):016x}", SystemClock())


def protobuf(data: bytes) -> None:
    """Bodies in protobuf, for each signal."""
    _decode(data, Encoding.PROTOBUF)


def walk(data: bytes) -> None:
    """Usual bodies in protobuf: what the compiled form reads by a walk of its own is what protobuf's parser reads."""
    if not protobuf_scan.is_usual(data):
        return
    budget = DecodingBudget(LIMITS)
    walked = [shown(found) for found in protobuf_scan.records(data, budget, TOKENS)]
    parsed = protobuf_logs.read_parsed(data)
    assert walked == [shown(found) for found in parsed.candidates]
    assert (budget.records, budget.frames) == (parsed.records, parsed.tally.frames)


def json(data: bytes) -> None:
    """Bodies in JSON, for each signal."""
    _decode(data, Encoding.JSON)


def json_walk(data: bytes) -> None:
    """Usual bodies in JSON: what the compiled form finds by a walk is what a JSON parser finds."""
    walked = json_logs.read_usual(data)
    if walked is None:
        return
    parsed = json_logs.read_parsed(data)
    assert [shown(found) for found in walked.candidates] == [shown(found) for found in parsed.candidates]
    assert (walked.records, walked.tally.frames) == (parsed.records, parsed.tally.frames)


def _decode(data: bytes, encoding: Encoding) -> None:
    for signal in SIGNALS:
        try:
            decode(data, encoding, signal)  # type: ignore[arg-type]  # the literals are those of Signal
        except InvalidBodyError:
            continue


def compressed(data: bytes) -> None:
    """Compressed bodies; the first byte chooses the coding."""
    if not data:
        return
    try:
        found = decompress(data[1:], CODINGS[data[0] % 4], LIMIT)
    except RequestRefusedError:
        return
    assert len(found) <= LIMIT


def numbers(data: bytes) -> None:
    """Exact JSON: a value that is read must be written back unchanged."""
    try:
        value = exact.loads(data)
    except InvalidBodyError:
        return
    assert exact.loads(exact.dumps(value)) == value
    assert exact.unpack(*exact.pack(value)) == value


def message(data: bytes) -> None:
    """Messages of the topic `usage`, which must be counted or refused, whatever they contain."""
    key = f"{CONNECTION}|s".encode()
    try:
        batch = parse(key, data)
    except InvalidMessageError:
        return
    for index, detail in batch.bad:
        DeadLetter.model_validate_json(dead_letters.invalid_message(0, 1, 1_800_000_000_000, data, detail, index)[1])


def state(data: bytes) -> None:
    """Entries of a state must be read back as written, and truncated ones must raise only IndexError."""
    try:
        entries = list(event_ids.unpack(data))
    except IndexError:
        return
    for _, what in entries:
        assert what == counted.UNKNOWN or len(what) > 1
    assert list(event_ids.unpack(event_ids.pack(entries))) == entries


def letter(data: bytes) -> None:
    """Fields of a dead letter, which may be counted or refused."""
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    if isinstance(fields, dict):
        try:
            renormalise(fields)
        except InvalidRecordError:
            return


def whole(data: bytes) -> None:
    """A request on its whole way: decompressed, decoded, in messages, counted, in rows. The first byte is its headers.

    Every message and letter must fit its model, and each event must count once, also when the body is sent again.
    """
    if not data:
        return
    coding, encoding = CODINGS[data[0] % 4], (Encoding.PROTOBUF, Encoding.JSON)[data[0] >> 2 & 1]
    signal = SIGNALS[data[0] >> 3 & 3]
    try:
        body = decompress(data[1:], coding, LIMIT)
        decoded = decode(body, encoding, signal)  # type: ignore[arg-type]
    except (RequestRefusedError, InvalidBodyError):
        return
    for value in MESSAGES.calls(decoded.sightings, CONNECTION):
        CallBatch.model_validate_json(value.value)
    if decoded.logs is None:
        return
    for value in MESSAGES.rejected(decoded.logs.rejected, digest_of(data), CONNECTION):
        DeadLetter.model_validate_json(value.value)
    states: dict[bytes, State] = {}
    for again in (False, True):
        for one in MESSAGES.usage(decoded.logs.packs, CONNECTION):
            UsageBatch.model_validate_json(one.value)
            _fold(states, one.key, one.value, again=again)
    for key, found in states.items():
        SessionHourCost.model_validate_json(to_row(key, found), strict=True)
        rows, _ = state_rows.dump(key, found)
        shelf = dict(rows)
        head = shelf[key]
        assert head is not None
        assert to_row(key, state_rows.load(key, head, shelf.get)) == to_row(key, found)


def _fold(states: dict[bytes, State], key: bytes, value: bytes, *, again: bool) -> None:
    batch = parse(key, value)
    assert not batch.bad, "the gateway writes what the worker takes"
    for event in batch.events:
        hour = key + b"|" + hour_iso(event[1] // HOUR_NS).encode() if event[1] < 2**62 else None
        if hour is None:
            continue
        found = states.setdefault(hour, State(batch.client, batch.provider))
        cost = book().price(
            batch.provider, event[2], event[3], event[1], event[5] + event[11], event[6], event[7], event[8], event[9],
            speed=event[4],
        )  # fmt: skip
        outcome = apply(found, event, cost, "book", batch.attribution, late=False)
        assert outcome in ((DUPLICATE, CONFLICT) if again else (COUNTED, DUPLICATE, CONFLICT, REPLACED)), outcome


@cache
def book() -> Book:
    """Return the pinned price book."""
    return Book()


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (protobuf, walk, json, json_walk, compressed, numbers, message, state, letter, whole)
}
