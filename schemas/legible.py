"""Other people's strings must not steer what shows them: a terminal, a log, a page of metrics.

Session ids, models and team names come from clients. A terminal escape in one could rewrite the screen.
"""

from __future__ import annotations

import re

_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""C0, DEL and C1 controls, line separators, bidirectional overrides, lone surrogates."""
_BUT_BREAKS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""The same where texts of several lines are shown: line breaks and tabs stay."""


def visible(text: str) -> str:
    r"""Return the text with everything that could steer a terminal written out: an escape becomes `\x1b`."""
    return _STEERING.sub(_written_out, text)


def visible_lines(text: str) -> str:
    """Return a text of several lines as `visible` does, its line breaks as they are."""
    return _BUT_BREAKS.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode()
