"""Parses the `line_item` of OpenAI's `/organization/costs`. Its grammar:

    [ROUTE " | "] MODEL [" " MODALITY] ", " [MODALITY " "] KIND [", long context"]

Anything else is a product: its dollars are shown under its own text and are never spread over a model's tokens. An
unknown kind makes the whole line a product, so that nothing is guessed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

KINDS = {
    "input": "input_uncached",
    "cached input": "cache_read",
    "output": "output",
    "cache writes": "cache_write_5m",
    "cache writes - 12hr": "cache_write_12h",
    "input_tokens": "input_uncached",
    "cached_input_tokens": "cache_read",
    "output_tokens": "output",
}
"""The token kind that the last part of a line stands for. Codex reports all its cache writes in one count, which is our
`cache_write_5m`; a line for 12-hour writes is a kind of its own. The last three are the published example's spelling.
"""
MODALITIES = ("text", "audio", "image")
TIERS = {"priority": "priority", "flex": "flex", "batch": "batch"}
"""Routes that are service tiers. Other routes, such as `evals` and `assistants api`, name the product that used the
model."""
STANDARD, LONG, SHORT = "standard", "long", "short"
_WINDOWS = {"long context": LONG}
_DATE = re.compile(r"-20\d\d-?[01]\d-?[0-3]\d$", re.ASCII)


class LineItem(NamedTuple):
    """A parsed line. `kind` is set exactly when `product` is not."""

    text: str
    route: str | None = None
    """The text before ` | `."""
    tier: str | None = STANDARD
    """None when the route is not a service tier."""
    model: str | None = None
    """As written, with its date."""
    modality: str | None = None
    """`audio` or `image`; None for plain text."""
    kind: str | None = None
    window: str = SHORT
    """Context window: `short` or `long`."""
    product: str | None = None
    """The text without its route, for a line that is not about a model's tokens."""

    @property
    def name(self) -> str | None:
        """The model without its date: the name used to join bills with usage reports and telemetry."""
        return None if self.model is None else undated(self.model)


def parse_line_item(text: str) -> LineItem:
    """Parse a line. Every text is a valid line: what does not follow the grammar is a product."""
    route, bar, rest = text.partition(" | ")
    tier: str | None = STANDARD
    if bar:
        tier = TIERS.get(route.strip().lower())
    else:
        rest = text
    line = LineItem(text, route.strip() if bar else None, tier)
    product = line._replace(product=rest)
    parts = rest.split(", ")
    window = SHORT
    if len(parts) == 3 and parts[2] in _WINDOWS:
        window = _WINDOWS[parts.pop()]
    if len(parts) != 2 or not parts[0].strip():
        return product
    model, kind = parts
    modality: str | None = None
    head, _, tail = kind.partition(" ")
    if head in MODALITIES and tail in KINDS:
        modality, kind = head, tail
    if kind not in KINDS:
        return product
    left, _, last = model.rpartition(" ")
    if left and last in MODALITIES:
        if modality not in (None, last):
            return product
        model, modality = left, last
    return line._replace(
        model=model, modality=None if modality == "text" else modality, kind=KINDS[kind], window=window
    )


def undated(model: str) -> str:
    """Return a model's name without the date of its snapshot: usage and costs report one model under different
    snapshots.
    """
    return _DATE.sub("", model)
