"""Variables of Ocean's container that have no effect here, each with what to do instead."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from tallystream.settings.ocean_names import LISTENER, known_variables

PREFIX = "OCEAN__"
_CONFIG = "OCEAN__INTEGRATION__CONFIG__"
_PAGES = "write it as selector.pagination of the kind in the mapping"
_KEYS = "OpenAI takes bearer tokens: set OCEAN__INTEGRATION__CONFIG__API_TOKEN or TALLYSTREAM_OPENAI_API_TOKEN"
_RESOURCES = "paths below one base URL are polled: set OCEAN__INTEGRATION__CONFIG__BASE_URL"
INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(
        (f"{_CONFIG}{name}" for name in ("PAGINATION_TYPE", "PAGE_SIZE", "PAGINATION_PARAM", "SIZE_PARAM", "START_PAGE",
                                         "CURSOR_PATH", "HAS_MORE_PATH", "NEXT_LINK_PATH")),
        _PAGES,
    ),
    **dict.fromkeys((f"{_CONFIG}{name}" for name in ("API_KEY", "API_KEY_HEADER", "USERNAME", "PASSWORD")), _KEYS),
    f"{_CONFIG}MULTIPLE_HOSTS": _RESOURCES,
    f"{_CONFIG}TIMEOUT": "set TALLYSTREAM_OPENAI_TIMEOUT, such as PT30S",
    f"{_CONFIG}VERIFY_SSL": "set TALLYSTREAM_OPENAI_CA to your CA's certificate",
    f"{_CONFIG}MAX_CONCURRENT_REQUESTS": "remove it: the poller asks for a few resources at a time",
    "OCEAN__INTEGRATION": "write its parts as OCEAN__INTEGRATION__IDENTIFIER and OCEAN__INTEGRATION__CONFIG__...",
    "OCEAN__INTEGRATION__CONFIG": "write its parts as OCEAN__INTEGRATION__CONFIG__BASE_URL and __API_TOKEN",
    "OCEAN__PORT": "write its parts as OCEAN__PORT__CLIENT_ID, __CLIENT_SECRET and __BASE_URL",
    "OCEAN__EVENT_LISTENER__INTERVAL": "set OCEAN__SCHEDULED_RESYNC_INTERVAL to the minutes between two polls",
    "OCEAN__EVENT_LISTENER__RESYNC_ON_START": "remove it: everything is polled and compared at every start",
}  # fmt: skip


@dataclass(frozen=True)
class IgnoredSetting:
    """A variable without effect."""

    name: str
    hint: str


def ignored_settings(environment: Mapping[str, str] | None = None) -> list[IgnoredSetting]:
    """Return the `OCEAN__*` variables that have no effect, by name."""
    given = os.environ if environment is None else environment
    known = known_variables() | {LISTENER}
    return [
        IgnoredSetting(name, INSTEAD.get(name, "docs/port.md lists the names that have an effect"))
        for name in sorted(given)
        if name.startswith(PREFIX) and name not in known
    ]
