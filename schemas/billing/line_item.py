"""A `line_item` of OpenAI's `/organization/costs`, by its grammar.

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
"""What a line's last part means, as a token kind of ours. Codex reports all its cache writes in one count, which is our
`cache_write_5m`; a line for 12-hour writes is a kind of its own. The last three are the published example's spelling.
"""
MODALITIES = ("text", "audio", "image")
TIERS = {"priority": "priority", "flex": "flex", "batch": "batch"}
"""Routes that are service tiers. Others, such as `evals` and `assistants api`, say what used the model."""
STANDARD, LONG, SHORT = "standard", "long", "short"
_WINDOWS = {"long context": LONG}
_DATE = re.compile(r"-20\d\d-?[01]\d-?[0-3]\d$", re.ASCII)


class LineItem(NamedTuple):
    """What a line is about. `kind` is set exactly when `product` is not."""

    text: str
    route: str | None = None
    """What stands before ` | `."""
    tier: str | None = STANDARD
    """None: a route that is no service tier."""
    model: str | None = None
    """As written, with its date."""
    modality: str | None = None
    """`audio` or `image`; plain text has none."""
    kind: str | None = None
    window: str = SHORT
    """Context window: `short` or `long`."""
    product: str | None = None
    """The text without its route, where the line is not a model's tokens."""

    @property
    def name(self) -> str | None:
        """The model without its date: what it is joined with usage and telemetry by."""
        return None if self.model is None else undated(self.model)


def parse_line_item(text: str) -> LineItem:
    """Return what a line is about; any text is a line."""
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
    """Return a model's name without the date of its snapshot: usage and costs name different ones for one model."""
    return _DATE.sub("", model)
