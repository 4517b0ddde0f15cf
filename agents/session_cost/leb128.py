"""Whole numbers of any size, 0 or more, in groups of seven bits (LEB128): how states store their counts."""

from __future__ import annotations

from collections.abc import Iterable


def append(out: bytearray, number: int) -> None:
    """Append a number."""
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def extend(out: bytearray, numbers: Iterable[int]) -> None:
    """Append numbers, one after the other."""
    add = out.append
    for number in numbers:
        left = number
        while left > 0x7F:
            add(left & 0x7F | 0x80)
            left >>= 7
        add(left)


def read(raw: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, and where it ends.

    Raises:
        IndexError: the bytes end within it.

    """
    number = shift = 0
    while True:
        byte = raw[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at
