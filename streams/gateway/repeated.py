"""Headers that exporters send twice.

Swift's and JavaScript's exporters append what users configure to what they have set already, so a value comes twice in
one line: `application/json, application/json` (opentelemetry-js 2335, opentelemetry-swift 894).
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp.http_exceptions import BadHttpMessage

_TWO_LINES: Final = re.compile(r"Duplicate '([A-Za-z-]{1,40})' header found")
"""What aiohttp says of two lines of a header that may have one; a name like this quotes nothing secret."""


def said_once(value: str) -> str:
    """Return the value that is repeated in a header's line, else the line as it is."""
    if "," not in value:
        return value
    parts = {part.strip() for part in value.split(",")}
    return parts.pop() if len(parts) == 1 else value


def repeated_header(exc: BaseException | None) -> str | None:
    """Return the name of the header of which two lines made aiohttp refuse a request, None if that was not why."""
    found = _TWO_LINES.match(exc.message) if isinstance(exc, BadHttpMessage) else None
    return found[1] if found else None
