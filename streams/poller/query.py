"""One query: fetches all its pages, or fails."""

from __future__ import annotations

import asyncio
from typing import Protocol
from urllib.parse import quote

from tallystream.streams.poller.errors import FailureReason, PollError
from tallystream.streams.poller.extract import PageItem, Row, buckets
from tallystream.streams.poller.params import Moment, pairs
from tallystream.streams.poller.request import PageAnswer, PageRequest
from tallystream.streams.poller.resources import Resource
from tallystream.streams.poller.schedule import TimeSpan

MAX_PAGES = 10_000


class Getter(Protocol):
    """Fetches one page; see `OpenAIClient.fetch`."""

    async def fetch(self, request: PageRequest) -> PageAnswer:
        """Return the response."""
        ...


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
    if parents is None or resource.parent_list is None or resource.parent_field is None:
        return await _rows(getter, resource, moment)
    rows: list[Row] = []
    for parent in await _rows(getter, resource.parent_list, moment):
        if resource.parent_filter is not None and resource.parent_filter(parent) is not True:
            continue
        name = resource.parent_field(parent)
        if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
            continue
        path = resource.path.replace(f"{{{parents.param}}}", quote(str(name), safe=""))
        rows += [
            row | {parents.name: str(name)}
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
    if pages is not None and pages.style == "page":
        values[pages.param] = pages.first
    items: list[PageItem] = []
    asked: set[str] = set()
    path = resource.path
    for number in range(1, MAX_PAGES + 1):
        request = PageRequest(
            path,
            pairs(values),
            resource.asks_with,
            resource.method,
            resource.headers,
            resource.body,
            named_by_page=path != resource.path,
        )
        answer = await getter.fetch(request)
        # A large response takes seconds, so it is processed in a thread to keep heartbeats going.
        page = await asyncio.to_thread(resource.extractor.page, answer.body)
        if pages is None:
            return page.items
        if page.items and page.items == items[-len(page.items) :] and pages.style != "token":
            raise _repeated()
        items += page.items
        if pages.style in ("offset", "page"):
            whole = page.more is not False if page.more is not None else len(page.items) >= (pages.size or 1)
            if not whole or not page.items:
                return items
            values[pages.param] = len(items) if pages.style == "offset" else pages.first + number
            continue
        following = page.next or answer.next_url if pages.style == "link" else page.next
        if following is None:
            return items
        if following in asked:
            raise _repeated()
        asked.add(following)
        if pages.style == "link":
            path, values = following, {}
        else:
            values[pages.param] = following
    raise PollError(FailureReason.PAGINATION, f"more than {MAX_PAGES} pages", "declare larger pages or a shorter chunk")


def _repeated() -> PollError:
    return PollError(
        FailureReason.PAGINATION, "the pagination repeats a page", "does the endpoint know the parameter of `pages`?"
    )
