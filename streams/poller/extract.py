"""Extracts complete buckets from a response with JQ, without losing precision.

JQ calculates with floats, so each Decimal passes through it as a marked string and is restored afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tallystream.schemas.openai import seconds
from tallystream.streams.poller.errors import FailureReason, PollError
from tallystream.streams.poller.params import compile_jq, first_line
from tallystream.streams.poller.schedule import TimeSpan

MARK = "\x00decimal:"
SAFE_INTEGER = 2**53
SECONDS_A_PAGE = 20.0
"""How long an expression may take: a page may have megabytes."""
WHOLE = "[.]"
"""The JQ for an item that is its own single row."""
Row = dict[str, Any]
_PATH = re.compile(r"(\.[A-Za-z_][A-Za-z0-9_]*)+")


@dataclass(frozen=True)
class PageItem:
    """One item of a page: the start of its bucket (None: it has no time) and its rows."""

    at: int | None
    rows: list[Row]


@dataclass(frozen=True)
class ResultPage:
    """One page: its items, and the parameter for the next one (None: it is the last, or does not say).

    `more` is what it says about further pages without naming the next one; None: nothing.
    """

    items: list[PageItem]
    next: str | None
    more: bool | None = None


class Expression:
    """JQ on exact JSON, compiled once.

    A plain path (`.data`, `.amount.value`) is walked as it stands: a JQ run goes through another process,
    and the built-in resources need nothing else.

    Raises:
        UsageError: it does not compile.

    """

    def __init__(self, source: str, what: str) -> None:
        self._path = source[1:].split(".") if _PATH.fullmatch(source) else None
        self._program = compile_jq(source, what, source)
        self._source = source

    def __call__(self, value: object) -> Any:
        """Return the first result, None when there is none.

        Raises:
            PollError: the expression fails on this value.

        """
        if self._path is not None:
            for name in self._path:
                if value is None:
                    return None
                if not isinstance(value, dict):
                    raise self._failed(f'Cannot index {type(value).__name__} with "{name}"')
                value = value.get(name)
            return value
        try:
            found = self._program.first(json.dumps(_mark(value)), SECONDS_A_PAGE)
        except ValueError as exc:
            raise self._failed(first_line(exc)) from exc
        return _unmark(found)

    def _failed(self, why: str) -> PollError:
        return PollError(
            FailureReason.SHAPE, f"the answer does not have the declared shape: {self._source}: {why}", _SHAPE_HINT
        )


class Extractor:
    """The expressions of one resource.

    Raises:
        UsageError: an expression does not compile.

    """

    def __init__(self, *, data: str, at: str | None, rows: str, next_page: str | None, more: str | None) -> None:
        self._data = Expression(data, "data")
        self._at = Expression(at, "at") if at is not None else None
        self._rows = Expression(rows, "rows") if rows != WHOLE else None
        self._next = Expression(next_page, "pages.next") if next_page is not None else None
        self._more = Expression(more, "pages.more") if more is not None else None

    def page(self, response: object) -> ResultPage:
        """Return what a response (exact JSON) holds.

        Raises:
            PollError: the response does not have the declared shape, or says there is more but not where.

        """
        data = self._data(response)
        if not isinstance(data, list):
            raise PollError(FailureReason.SHAPE, "the answer has no list where its items should be", _SHAPE_HINT)
        items = [self._item(item) for item in data]
        token = self._next(response) if self._next else None
        more = self._more(response) if self._more else None
        if self._next is None:
            return ResultPage(items, None, None if more is None else bool(more))
        if more is None:
            more = token is not None
        if not more:
            return ResultPage(items, None)
        if not isinstance(token, str) or not token:
            raise PollError(
                FailureReason.PAGINATION, "the answer has more pages but does not name the next one", _SHAPE_HINT
            )
        return ResultPage(items, token)

    def items(self, response: object) -> list[Any] | None:
        """Return the items of a response as they are; None: it has no list of them.

        Raises:
            PollError: the expression fails on it.

        """
        data = self._data(response)
        return data if isinstance(data, list) else None

    def rows(self, item: object) -> list[Any]:
        """Return the rows of an item; an item that has none of its own is one itself."""
        found = self._rows(item) if self._rows and isinstance(item, dict) else None
        return found if isinstance(found, list) else [item]

    def _item(self, item: object) -> PageItem:
        rows = self._rows(item) if self._rows else [item]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise PollError(FailureReason.SHAPE, "the rows of an item are not a list of objects", _SHAPE_HINT)
        return PageItem(bucket_start(self._at(item)) if self._at else None, rows)


_SHAPE_HINT = "the API may have changed: `tallystream openai explore PATH` shows what it answers now"


def buckets(items: Iterable[PageItem], span: TimeSpan, width: int) -> dict[int, list[Row]]:
    """Return the rows of each bucket of the span that the items speak of; items outside were not asked for.

    A bucket without an item is unknown, not empty: it is not in the result.

    Raises:
        PollError: two items are of one bucket, so that neither is the whole of it.

    """
    found: dict[int, list[Row]] = {}
    for item in items:
        assert item.at is not None
        start = item.at // width * width
        if not span.start <= start < span.end:
            continue
        if start in found:
            raise PollError(FailureReason.SHAPE, f"two items of an answer belong to the bucket at {start}", _SHAPE_HINT)
        found[start] = item.rows
    return found


def bucket_start(value: object) -> int:
    """Return seconds since the epoch out of a number, a date or an RFC 3339 time.

    Raises:
        PollError: it is not one of these.

    """
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            at = None
        if at is not None:
            return seconds(at.replace(tzinfo=UTC) if at.tzinfo is None else at)
    raise PollError(FailureReason.SHAPE, f"an item's time is {str(value)[:40]!r}, not a number or a date", _SHAPE_HINT)


def _mark(value: object) -> Any:
    match value:
        case bool():
            return value
        case Decimal():
            return f"{MARK}{value}"
        case int() if not -SAFE_INTEGER < value < SAFE_INTEGER:
            return f"{MARK}{value}"
        case dict():
            return {key: _mark(item) for key, item in value.items()}
        case list():
            return [_mark(item) for item in value]
    return value


def _unmark(value: object) -> Any:
    match value:
        case str() if value.startswith(MARK):
            number = Decimal(value[len(MARK) :])
            return int(number) if number == number.to_integral_value() else number
        case float():
            return int(value) if value.is_integer() else Decimal(repr(value))
        case dict():
            return {key: _unmark(item) for key, item in value.items()}
        case list():
            return [_unmark(item) for item in value]
    return value
