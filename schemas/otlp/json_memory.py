"""How much memory a JSON text needs as Python objects, which a body must not multiply."""

from __future__ import annotations

from typing import Final

ALLOWANCE: Final = 8 << 20
"""Memory in bytes that a parsed body or part may need beyond seven times its own size."""
_WEIGHT: Final = 7
_OBJECT: Final = 240
_DENSEST: Final = 100
"""Memory in bytes that a valid JSON text needs for each of its own, at most, as `weighs_too_much` computes it: `{},` is
its densest part. Every value but the first one of a list or object has a comma, and a first one has an outer pair of
brackets. Of a text that is not valid orjson makes no objects.
"""
_NO_PARTS: Final = bytes(byte for byte in range(256) if byte not in b"{[,")


def is_surely_allowed(size: int) -> bool:
    """Whether no valid JSON text of this size may exceed the bound of `weighs_too_much`."""
    return _DENSEST * size + _OBJECT <= memory_allowed(size)


def memory_allowed(size: int) -> int:
    """Return how many bytes of memory a JSON text of `size` bytes may need as Python objects."""
    return ALLOWANCE + _WEIGHT * size


def weighs_too_much(raw: bytes) -> bool:
    """Whether a JSON text might need far more memory as Python objects than its own size.

    An upper bound, computed from the size of a dict (184 bytes, and its slot), a list and any other value in CPython.
    Brackets and commas inside strings count too, so text that contains much code is overestimated.
    """
    allowed = memory_allowed(len(raw))
    if _OBJECT * len(raw) <= allowed:
        return False
    # one pass leaves a fortieth of a usual body, in which counting costs nothing
    parts = raw.translate(None, _NO_PARTS)
    return _OBJECT * parts.count(b"{") + 120 * parts.count(b"[") + 60 * parts.count(b",") > allowed
