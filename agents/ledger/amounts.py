"""Money in the ledger's tables: two integers, so that both databases add it exactly."""

from __future__ import annotations

from typing import Any

from tallystream.agents.ledger.schema import LO


def split_money(pico: int | None) -> tuple[int | None, int | None]:
    """Return pico-dollars as (hi, lo)."""
    return (None, None) if pico is None else divmod(pico, LO)


def join_money(hi: Any, lo: Any) -> int | None:
    """Return (hi, lo), or sums of them, as pico-dollars."""
    return None if hi is None else int(hi) * LO + int(lo)
