"""One query: fetches all its pages, or fails."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol
from urllib.parse import quote

from tallystream.streams.poller.errors import FailureReason, PollError
from tallystream.streams.poller.extract import PageItem, Row, buckets
from tallystream.streams.poller.params import Moment, Pairs, pairs
from tallystream.streams.poller.resources import Resource
from tallystream.streams.poller.schedule import TimeSpan

MAX_PAGES = 10_000


class Getter(Protocol):
    """Fetches one page; see `OpenAIClient.get`."""

    async def get(self, path: str, params: Pairs, key: str = "api") -> Any:
        """Return the response's exact JSON."""


async def fetch_buckets(getter: Getter, resource: Resource, span: TimeSpan, now: float) -> dict[int, list[Row]]:
    """Return the rows of each bucket of the span, by the bucket's start; buckets missing in the response are unknown.

    Raises:
        PollError: a page failed, or does not match the declaration.

    """
    window = resource.window
    assert window is not None, "a resource without buckets is fetched by fetch_current"
    if resource.requests == "bucket":
        moment = Moment(min(now, span.end - 1), span.start, span.end)
        return {span.start: await _rows(getter, resource, moment)}
    items = await _items(getter, resource, Moment(now, span.start, span.end))
    return buckets(items, span, window.width)


async def fetch_current(getter: Getter, resource: Resource, now: float) -> list[Row]:
    """Return all rows of a resource without buckets.

    Raises:
        PollError: as `fetch_buckets`.

    """
    moment = Moment(now, int(now), int(now))
    parents = resource.parents
    if parents is None:
        return await _rows(getter, resource, moment)
    rows: list[Row] = []
    for parent in await _rows(getter, resource.model_copy(update={"path": parents.path}), moment):
        if isinstance(name := parent.get("id"), str):
            path = resource.path.replace("{id}", quote(name, safe=""))
            rows += [
                row | {parents.name: name}
                for row in await _rows(getter, resource.model_copy(update={"path": path}), moment)
            ]
    return rows


async def _rows(getter: Getter, resource: Resource, moment: Moment) -> list[Row]:
    return [row for item in await _items(getter, resource, moment) for row in item.rows]


async def _items(getter: Getter, resource: Resource, moment: Moment) -> list[PageItem]:
    values = resource.compiled.evaluate(moment)
    pages = resource.pages
    if pages is not None and pages.size is not None:
        values[pages.size_param] = pages.size
    items: list[PageItem] = []
    asked: set[str] = set()
    for _ in range(MAX_PAGES):
        answer = await getter.get(resource.path, pairs(values), resource.key)
        # A large response takes seconds, so it is processed in a thread to keep heartbeats going.
        page = await asyncio.to_thread(resource.extractor.page, answer)
        items += page.items
        if pages is None:
            return items
        if pages.style == "offset":
            assert pages.size is not None
            if len(page.items) < pages.size:
                return items
            values[pages.param] = len(items)
            continue
        if page.next is None:
            return items
        if page.next in asked:
            raise PollError(FailureReason.PAGINATION, "the pagination repeats a page", "the API may have changed")
        asked.add(page.next)
        values[pages.param] = page.next
    raise PollError(FailureReason.PAGINATION, f"more than {MAX_PAGES} pages", "declare larger pages or a shorter chunk")
