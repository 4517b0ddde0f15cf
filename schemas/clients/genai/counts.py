"""Converts producers' token counts to one convention: input includes cached and written, output includes reasoning.

Producers differ in which counts include others, and few document it. What is known of a producer decides first; then
its own total, if it gives one; and otherwise arithmetic, because a part cannot exceed its whole.
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
    cache_write_1h: int | None = None
    """A part of `cache_write`."""


def settle(
    counts: Counts,
    *,
    total: int | None = None,
    adds_reasoning_twice: bool = False,
    counts_cached_beside: bool = False,
    counts_reasoning_beside: bool = False,
    hides_reasoning: bool = False,
) -> Counts:
    """Return the counts with parts inside their wholes.

    Args:
        counts: as the producer wrote them.
        total: the producer's own sum, when it gives one.
        adds_reasoning_twice: the producer is known to add reasoning to an output that already includes it.
        counts_cached_beside: the producer's input is known not to include cached tokens.
        counts_reasoning_beside: the producer's output is known not to include reasoning.
        hides_reasoning: the provider's output does not include reasoning, so that what only the total includes is
            reasoning that the producer did not report.

    """
    whole, output = counts.input, counts.output
    cached = (counts.cache_read or 0) + (counts.cache_write or 0)
    reasoning = counts.reasoning
    outside = None if total is None or whole is None else total - whole - (output or 0)
    if (
        whole is not None
        and cached
        and (counts_cached_beside or cached > whole or outside in (cached, cached + (reasoning or 0)))
    ):
        whole += cached
        outside = None if outside is None else outside - cached
    if output is not None:
        if hides_reasoning and reasoning is None and outside is not None and outside > 0:
            output, reasoning = output + outside, outside
        elif reasoning and adds_reasoning_twice and output >= 2 * reasoning:
            output -= reasoning
        elif reasoning and (counts_reasoning_beside or reasoning > output or outside == reasoning):
            output += reasoning
    return counts._replace(input=whole, output=output, reasoning=reasoning)
