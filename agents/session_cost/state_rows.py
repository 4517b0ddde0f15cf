"""The rows of a session-hour in the changelog and the store. Each begins with its format and its version.

    connection|session|hour           the head: all that is not in the other two (formats 4 to 7; 1 to 3 are read)
    connection|session|i<hash>|hour   a block of event ids (`event_ids`)
    connection|session|b<hash>|hour   what a bucket is: model, tier, speed, book, attribution

A short session-hour is its head alone (format 4, JSON). When its first block of ids is full, what never changes again
moves to rows of its own and the head shrinks to numbers (format 5): about a hundred bytes, however long the hour gets.
A session-hour whose prices were corrected has format 6 or 7 in the place of 4 or 5: it also tells by which message, so
that an older correction is recognised. A release that cannot apply corrections refuses to read these.
Rows other than heads are named by the hash of their content and never change. In a group they stand before the heads
that need them, and the tombstones of blocks that are forgotten behind them, so that a torn group breaks no head.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson

from tallystream.agents.session_cost import event_ids, leb128
from tallystream.agents.session_cost import sums as s
from tallystream.agents.session_cost.counted import folded, unfolded
from tallystream.agents.session_cost.hour_state import BucketKey, State, size_of, to_row
from tallystream.schemas.errors import UnfitError
from tallystream.schemas.hours import HOUR_NS, hour_from_iso
from tallystream.streams.runtime.changelog import Row

Read = Callable[[bytes], bytes | None]
"""Returns the row of a key in the same partition."""

_VERSION = struct.Struct("<Bq")
JSON_HEAD = struct.Struct("<BqI")
"""Formats 1, 2, 4 and 6: format, version, length of the JSON; the open ids follow, in 4 and 6 with what was counted."""
JSON_FORMAT = 4
_JSON_FORMATS = frozenset((1, 2, 4, 6))
_COMPACT = struct.Struct("<Bq8s")
"""Formats 3, 5 and 7: format, version, name of the last block; numbers (`leb128`) and the open ids follow it."""
_BUCKET_FORMAT = 17
HEAD_PARTS = 3
"""Parts of a head's key; those of other rows have more."""
_ALL_3 = (1 << 13) - 1
"""Mask of the sums in a bucket of format 3, which has all 13 that there were."""


def is_head(key: bytes) -> bool:
    """Tell a session-hour's head from its other rows. `|` inside the parts of a key is escaped."""
    return key.count(b"|") == HEAD_PARTS - 1


def version_of(raw: bytes) -> int:
    """Return the version of a row: of a head that of the last message in it, of the others 0."""
    version: int = _VERSION.unpack_from(raw)[1]
    return version


# -- writing


def dump(key: bytes, state: State) -> tuple[list[Row], list[Row]]:
    """Return the rows that a state has to write since the last time: the head and what it needs, and tombstones.

    The caller writes the tombstones behind all heads of the group. What is returned is not returned again.
    """
    ids = state.ids
    ids.seal()
    rows: list[Row] = [(_part(key, b"i", name), row) for name, row in ids.fresh.items()]
    gone: list[Row] = [(_part(key, b"i", name), None) for name in ids.forgotten]
    ids.fresh, ids.forgotten = {}, []
    if ids.blocks:
        for bucket in state.buckets:
            if bucket not in state.names:
                text = orjson.dumps((state.client, state.provider, *bucket))
                name = state.names[bucket] = blake2b(text, digest_size=8).digest()
                rows.append((_part(key, b"b", name), _VERSION.pack(_BUCKET_FORMAT, 0) + text))
        rows.append((key, _compact(key, state)))
    else:
        rows.append((key, _inline(state)))
    return rows, gone


def _part(key: bytes, kind: bytes, name: bytes) -> bytes:
    """Return the key of another row of a session-hour; as the head's, it ends with the hour."""
    session, _, hour = key.rpartition(b"|")
    return b"%b|%b%b|%b" % (session, kind, name.hex().encode(), hour)


def _inline(state: State) -> bytes:
    # Money as text: it may exceed the 64 bits that orjson writes.
    buckets = [
        (*key, *sums[: s.COST], str(sums[s.COST]), sums[s.UNPRICED], str(sums[s.REPORTED]), *sums[s.REPORTS :])
        for key, sums in state.buckets.items()
    ]
    ids = state.ids
    corrected = (state.repriced,) if state.repriced >= 0 else ()
    head = orjson.dumps((state.client, state.provider, state.duplicates, ids.floor, ids.newest, buckets, *corrected))
    return JSON_HEAD.pack(6 if corrected else JSON_FORMAT, state.version, len(head)) + head + ids.open


def _compact(key: bytes, state: State) -> bytes:
    """Return a head of format 5 or 7.

    Its newest event time is told from the hour's start; of the sums, those that are 0 are left out, and what clients
    reported is told from what we found.
    """
    ids = state.ids
    numbers = bytearray()
    corrected = (state.repriced,) if state.repriced >= 0 else ()
    newest = max(0, ids.newest - _start_of(key))
    leb128.extend(numbers, (state.duplicates, newest, len(state.buckets), *corrected))
    for bucket, sums in state.buckets.items():
        numbers += state.names[bucket]
        told = sums
        if sums[s.REPORTS]:
            told = [*sums]
            told[s.REPORTED] = folded(sums[s.REPORTED] - sums[s.COST])
        mask, bit, present = 0, 1, []
        for number in told:
            if number:
                mask |= bit
                present.append(number)
            bit <<= 1
        leb128.extend(numbers, (mask, *present))
    return _COMPACT.pack(7 if corrected else 5, state.version, ids.last) + numbers + ids.open


def _start_of(key: bytes) -> int:
    """Return when the hour of a head begins, ns since the epoch."""
    return hour_from_iso(key.rpartition(b"|")[2].decode()) * HOUR_NS


# -- reading


def load(key: bytes, raw: bytes, read: Read) -> State:
    """Return the state of a head.

    Raises:
        UnfitError: another format, such as that of a newer version; or a row that it needs is missing.

    """
    state, idents = _head(key, raw, read)
    form = raw[0]
    still_open = event_ids.packed_ids(idents) if 1 < form <= 3 else idents
    if form == 1:
        _, _, _, floor, newest, *_ = _json(raw)[0]
        state.ids = event_ids.from_format_1(event_ids.numbers(idents), newest, floor)
    elif form in (2, 4, 6):
        _, _, _, floor, latest, *_ = _json(raw)[0]
        state.ids = event_ids.from_chain(event_ids.NONE, latest, still_open, read)
        state.ids.floor = floor
    else:
        last = _COMPACT.unpack_from(raw)[2]
        _, at = leb128.read(raw, _COMPACT.size)
        newest, _ = leb128.read(raw, at)
        newest_at = newest - 1 if form == 3 else newest + _start_of(key)
        state.ids = event_ids.from_chain(last, newest_at, still_open, lambda name: read(_part(key, b"i", name)))
    state.carried = {bucket: tuple(sums) for bucket, sums in state.buckets.items()}
    state.size = sum(size_of(bucket) for bucket in state.buckets)
    return state


def load_buckets(key: bytes, raw: bytes, read: Read) -> dict[BucketKey, list[int]]:
    """Return only the buckets of a head: what the hours need, without the ids and, in recovery, for every row."""
    if raw[0] in _JSON_FORMATS:
        return _json_buckets(_json(raw)[0][5])
    return _head(key, raw, read)[0].buckets


def public_row(key: bytes, raw: bytes, read: Read) -> bytes:
    """Return the public row of a head; its ids are not looked at."""
    return to_row(key, _head(key, raw, read)[0])


def _json(raw: bytes) -> tuple[Any, int]:
    _, _, length = JSON_HEAD.unpack_from(raw)
    end = JSON_HEAD.size + length
    return orjson.loads(raw[JSON_HEAD.size : end]), end


def _json_buckets(buckets: list[list[Any]]) -> dict[BucketKey, list[int]]:
    found: dict[BucketKey, list[int]] = {}
    for model, tier, speed, book, attribution, *sums in buckets:
        sums[s.COST], sums[s.REPORTED] = int(sums[s.COST]), int(sums[s.REPORTED])  # the two that are text
        found[model, tier, speed, book, attribution] = s.widened(sums)
    return found


def _head(key: bytes, raw: bytes, read: Read) -> tuple[State, bytes]:
    """Return the state without its ids, and the open ids."""
    form = raw[0]
    if form in _JSON_FORMATS:
        (client, provider, duplicates, _, _, buckets, *corrected), end = _json(raw)
        state = State(client, provider)
        state.repriced = corrected[0] if corrected else -1
        state.buckets = _json_buckets(buckets)
    elif form in (3, 5, 7):
        state, duplicates, end = _compact_head(key, raw, read)
    else:
        raise UnfitError(
            f"the table session_hours holds rows of format {form}, this version reads 1 to 7",
            "run the version that wrote them, or a newer one",
        )
    state.version, state.duplicates = version_of(raw), duplicates
    return state, raw[end:]


def _compact_head(key: bytes, raw: bytes, read: Read) -> tuple[State, int, int]:
    form, read_number = raw[0], leb128.read
    duplicates, end = read_number(raw, _COMPACT.size)
    _, end = read_number(raw, end)
    count, end = read_number(raw, end)
    state = State("", "")
    if form == 7:
        state.repriced, end = read_number(raw, end)
    for _ in range(count):
        name = raw[end : end + 8]
        mask, end = (_ALL_3, end + 8) if form == 3 else read_number(raw, end + 8)
        sums, index = s.zero(), 0
        while mask:
            if mask & 1:
                sums[index], end = read_number(raw, end)
            mask >>= 1
            index += 1
        if form != 3 and sums[s.REPORTS]:
            sums[s.REPORTED] = sums[s.COST] + unfolded(sums[s.REPORTED])
        row = read(_part(key, b"b", name))
        if row is None:
            raise UnfitError(
                f"the table session_hours lacks the description of the bucket {name.hex()} of {key!r}",
                "remove the worker's data directory: it is rebuilt from the changelog",
            )
        state.client, state.provider, bucket = _described(row)
        state.buckets[bucket] = sums
        state.names[bucket] = name
    return state, duplicates, end


@lru_cache(10_000)
def _described(row: bytes) -> tuple[str, str, BucketKey]:
    """Return client, provider and bucket of a bucket's row; sessions of a team and a model have equal ones."""
    client, provider, model, tier, speed, book, attribution = orjson.loads(row[_VERSION.size :])
    return client, provider, (model, tier, speed, book, attribution)
