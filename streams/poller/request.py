"""A request for one page, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tallystream.streams.poller.params import Pairs


@dataclass(frozen=True)
class PageRequest:
    """One request. `path` is below the base URL; if an earlier page named it, it is a URL, whole or relative."""

    path: str
    params: Pairs
    key: str = "api"
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    """JSON to send; None: nothing."""
    named_by_page: bool = False


@dataclass(frozen=True)
class PageAnswer:
    """The exact JSON of an answer, and the URL that its `Link` header calls `next`."""

    body: Any
    next_url: str | None = None
