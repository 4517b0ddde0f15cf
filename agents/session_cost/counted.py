"""Encodes what was counted for an event id in a few bytes, so that it can be taken back when a larger record arrives.

    UNKNOWN          one byte 0: of an older version, or of a client whose ids are made of the counts
    mask, numbers    two bytes, then each number that is not 0 (LEB128)

The first byte of a mask is never 0. Two records of one request differ when their token counts do: `reasoning`, which is
a part of `output`, and all fields except the client's counts may differ between copies.
"""

from __future__ import annotations

from typing import NamedTuple

from tallystream.agents.session_cost import leb128
from tallystream.schemas.usage import TOKEN_COUNTS

UNKNOWN = b"\0"
IDS_OF_COUNTS = frozenset({"codex", "gemini"})
"""Clients whose events have ids made of their counts too: no two different records of theirs have one id."""

_KNOWN, _PRICED, _REPORTED, _LATE, _INCONSISTENT = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 4
_TENS = 5
"""Bit where the number of zeros that the cost's decimal digits end in begins: 3 bits."""
_NUMBERS = 8
"""Bit where those of the numbers begin: the bucket does not need one, for it is 0 nearly always."""


class Counted(NamedTuple):
    """What one event added to its state: to the bucket at `place`, `counts` in the order of TOKEN_COUNTS."""

    place: int
    counts: tuple[int, ...]
    cost: int | None
    reported: int | None
    late: bool
    inconsistent: bool

    @property
    def disjoint(self) -> tuple[int, ...]:
        """Return the counts that two copies of one record have in common."""
        return disjoint(self.counts)


_REASONING = TOKEN_COUNTS.index("reasoning")


def disjoint(counts: tuple[int, ...]) -> tuple[int, ...]:
    """Return token counts without `reasoning`."""
    return counts[:_REASONING] + counts[_REASONING + 1 :]


def size_of(counts: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Return what decides which of two different records is the larger: tokens, then the counts in order."""
    return sum(counts), counts


def pack(
    place: int, counts: tuple[int, ...], cost: int | None, reported: int | None, flags: tuple[bool, bool]
) -> bytes:
    """Return what was counted; `flags` are late and inconsistent."""
    late, inconsistent = flags
    mask = _KNOWN | (late and _LATE) | (inconsistent and _INCONSISTENT)
    tens, priced = 0, cost or 0
    if cost is not None:
        mask |= _PRICED
        while cost and tens < 7 and not cost % 10:
            cost //= 10
            tens += 1
        mask |= tens << _TENS
    if reported is not None:  # clients mostly report what we find: as a difference it takes a byte
        mask |= _REPORTED
        reported = folded(reported - priced)
    out = bytearray(2)
    bit = 1 << _NUMBERS
    for number in counts:
        if number:
            mask |= bit
            leb128.append(out, number)
        bit <<= 1
    if place:
        mask |= bit
        leb128.append(out, place)
    if cost is not None:
        leb128.append(out, cost)
    if reported is not None:
        leb128.append(out, reported)
    out[0], out[1] = mask & 0xFF, mask >> 8
    return bytes(out)


def unpack(raw: bytes) -> Counted | None:
    """Return what was counted, None when it is not known."""
    mask = raw[0]
    if not mask:
        return None
    mask |= raw[1] << 8
    at = 2
    numbers: list[int] = []
    for bit in range(_NUMBERS, _NUMBERS + len(TOKEN_COUNTS) + 1):
        number = 0
        if mask >> bit & 1:
            number, at = leb128.read(raw, at)
        numbers.append(number)
    cost = reported = None
    if mask & _PRICED:
        cost, at = leb128.read(raw, at)
        cost *= 10 ** (mask >> _TENS & 7)
    if mask & _REPORTED:
        number, at = leb128.read(raw, at)
        reported = (cost or 0) + unfolded(number)
    return Counted(numbers[-1], tuple(numbers[:-1]), cost, reported, bool(mask & _LATE), bool(mask & _INCONSISTENT))


def end_of(raw: bytes, at: int) -> int:
    """Return where what begins at `at` ends."""
    mask = raw[at]
    if not mask:
        return at + 1
    left = raw[at + 1].bit_count() + bool(mask & _PRICED) + bool(mask & _REPORTED)
    at += 2
    while left:
        left -= raw[at] < 0x80
        at += 1
    return at


def folded(number: int) -> int:
    """Return a number that may be negative as one that is not, small where it is close to 0."""
    return 2 * number if number >= 0 else -2 * number - 1


def unfolded(number: int) -> int:
    """Return the number of `folded`."""
    return -(number + 1) // 2 if number & 1 else number // 2
