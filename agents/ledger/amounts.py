"""Numbers in the ledger's tables: money is two integers, so that both databases add it exactly; a version is one."""

from __future__ import annotations

from typing import Any

from tallystream.agents.ledger.schema import LO

OFFSETS = 1 << 48
GENERATIONS = 1 << 15


def split_money(pico: int | None) -> tuple[int | None, int | None]:
    """Return pico-dollars as (hi, lo)."""
    return (None, None) if pico is None else divmod(pico, LO)


def join_money(hi: Any, lo: Any) -> int | None:
    """Return (hi, lo), or sums of them, as pico-dollars."""
    return None if hi is None else int(hi) * LO + int(lo)


def pack_version(generation: int, offset: int) -> int | None:
    """Return a version as one integer that compares as the pair does; None when it does not fit."""
    if not 0 <= generation < GENERATIONS or not 0 <= offset < OFFSETS:
        return None
    return generation * OFFSETS + offset


def unpack_version(version: int) -> list[int]:
    """Return `[generation, offset]`."""
    return list(divmod(version, OFFSETS))
