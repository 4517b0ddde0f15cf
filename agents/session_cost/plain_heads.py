"""Adds up heads of one bucket from their JSON text, for recovery: most of a table are such heads, by the million.

    ["codex","openai",0,-1,1764000701929381267,[["gpt-5.1-codex",null,null,"book","{..}",3,9,2,0,0,5,0,0,"3",0,"0",0,0,0]]]
    start                                      bucket                                   sums

Making objects of all of it takes as long as the rest of recovery. Here the sums of many heads are parsed at once, as
one list of numbers, and start and bucket only once, because few differ. What is taken for start and bucket ends outside
of any text, for both are valid JSON once they are closed; and as many numbers as commas say that each head has all its
sums. Whatever does not fit is left to `state_rows.load_buckets`, and a property test holds both to the same sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from tallystream.agents.session_cost import state_rows
from tallystream.agents.session_cost import sums as s
from tallystream.streams.runtime.fold import Replacement

_COMMAS = s.WIDTH - 1
Kind = tuple[bytes, bytes, bytes, bytes]
"""What heads that are added up have in common: connection and hour as in their keys, start and bucket."""


class PlainHeads(NamedTuple):
    """Sums and versions of plain heads, by kind, and the replacements of other heads."""

    plain: dict[Kind, tuple[list[bytes], list[int]]]
    others: list[Replacement]


def sort_out(replaced: Sequence[Replacement]) -> PlainHeads:
    """Return the heads among rows; those that replace another one are not plain.

    As little as possible is kept of each, because what is kept of thousands has to be fetched from memory again.
    """
    plain: dict[Kind, tuple[list[bytes], list[int]]] = {}
    others: list[Replacement] = []
    unpack, size = state_rows.JSON_HEAD.unpack_from, state_rows.JSON_HEAD.size
    for one in replaced:
        key, old, raw = one
        parts = key.split(b"|")
        if raw is None or len(parts) != state_rows.HEAD_PARTS:
            continue
        if old is None and raw[0] == state_rows.JSON_FORMAT:
            _, version, length = unpack(raw)
            end = size + length
            bucket = raw.find(b',[["', size, end) + 1
            at = raw.rfind(b'}",', bucket, end) + 3
            sums = raw[at : end - 3]
            if (
                bucket
                and at > bucket
                and sums.count(b",") == _COMMAS
                and raw.endswith(b"]]]", size, end)
                and raw.find(b"],[", bucket, end) < 0  # several buckets, or a text that looks like it
            ):
                start = raw[size:bucket].rstrip(b"0123456789-,")
                kind = (parts[0], parts[2], start, raw[bucket:at])
                found = plain.get(kind)
                if found is None:
                    found = plain[kind] = ([], [])
                found[0].append(sums)
                found[1].append(version)
                continue
        others.append(one)
    return PlainHeads(plain, others)


@lru_cache(10_000)
def name_of(start: bytes, bucket: bytes) -> tuple[str, str] | None:
    """Return the model and the attribution; None if these are not start and bucket of a head."""
    try:
        names, buckets = orjson.loads(start + b"]"), orjson.loads(bucket + b"0]]")
    except orjson.JSONDecodeError:
        return None
    match names, buckets:
        case [str(), str()], [[str(model), None | str(), None | str(), str(), str(attribution), 0]]:
            return model, attribution
    return None


def add_up(sums: Sequence[bytes]) -> list[int] | None:
    """Return the sums of all heads together, None if one of them has not just these numbers."""
    try:
        numbers: list[Any] = orjson.loads(b"[" + b",".join(sums) + b"]")
        columns = [numbers[index :: s.WIDTH] for index in range(s.WIDTH)]
        columns[s.COST], columns[s.REPORTED] = [*map(int, columns[s.COST])], [*map(int, columns[s.REPORTED])]
        return [*map(sum, columns)] if len(numbers) == len(sums) * s.WIDTH else None
    except (TypeError, ValueError):
        return None
