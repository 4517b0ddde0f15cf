"""Which ids identify a request or its response.

Clients without an id send placeholders, and servers of local models number their responses: Ollama draws one of 999
numbers (`chatcmpl-42`), KoboldCpp calls every response `chatcmpl-A1`. Taken for identities, such ids make one request
of many.
"""

from __future__ import annotations

import re
from typing import Final

from tallystream.schemas.clients.base import text
from tallystream.schemas.otlp.records import Value

MIN_ID: Final = 12
"""Minimum length of a response id after its prefix (`chatcmpl-`): shorter ones repeat."""
_PREFIX: Final = re.compile(r"^[A-Za-z]+[-_]")
_PLACEHOLDER: Final = re.compile(
    r"(?:req(?:uest)?[_.:-]?)?(?:id[_.:-]?)?"
    r"(?:|[0f]+(?:-[0f]+)*|[x*._?#-]+|unknown|undefined|none|null|nil|nan|n/?a|empty|missing|redacted|default|test|todo"
    r"|placeholder|object object|true|false"
    r"|(?:no|not)[ _-]?(?:set|available|provided|applicable|id|request[ _-]?id|found))",
    re.ASCII,
)
"""Placeholders that clients send instead of an id: all zeros, `unknown`, `<nil>`, `[object Object]`, `req_unknown`."""


def known(value: Value) -> str | None:
    """Return an id as bounded text; None for a placeholder, which does not identify anything."""
    found = text(value)
    return None if found is None or _is_placeholder(found) else found


def unique_id(value: Value) -> str | None:
    """Return a response id that identifies one response wherever it came from; None for one that may come again."""
    found = text(value)
    if found is None:
        return None
    bare = _PREFIX.sub("", found)
    return None if len(bare) < MIN_ID or _is_placeholder(bare) else found


def _is_placeholder(found: str) -> bool:
    return _PLACEHOLDER.fullmatch(found.strip("<>[](){}\"'` ").casefold()) is not None
