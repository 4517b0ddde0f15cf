"""Converts producers' token counts to one convention: input includes cached and written, output includes reasoning.

Producers differ in which counts include others, and few document it. The producer's own total decides if there is one;
otherwise arithmetic does, because a part cannot exceed its whole.
"""

from __future__ import annotations

from typing import NamedTuple


class Counts(NamedTuple):
    """Token counts of one call; None if the producer did not report the count."""

    input: int | None
    output: int | None
    cache_read: int | None
    cache_write: int | None
    reasoning: int | None


def settle(counts: Counts, *, total: int | None = None, adds_reasoning_twice: bool = False) -> Counts:
    """Return the counts with parts inside their wholes.

    Args:
        counts: as the producer wrote them.
        total: the producer's own sum, when it gives one.
        adds_reasoning_twice: the producer is known to add reasoning to an output that already includes it.

    """
    whole, output = counts.input, counts.output
    cached = (counts.cache_read or 0) + (counts.cache_write or 0)
    reasoning = counts.reasoning or 0
    if (
        whole is not None
        and cached
        and (cached > whole or (total is not None and total == whole + cached + (output or 0)))
    ):
        whole += cached
    if output is not None and reasoning:
        if adds_reasoning_twice and output >= 2 * reasoning:
            output -= reasoning
        elif reasoning > output or (total is not None and total == (counts.input or 0) + output + reasoning):
            output += reasoning
    return counts._replace(input=whole, output=output)
