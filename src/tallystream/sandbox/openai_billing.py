"""OpenAI's costs, hourly usage, projects and keys from a configured bill (`billed`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tallystream.sandbox.billed import OpenAIBill, OpenAIUse, added
from tallystream.sandbox.openai_api import COSTS_LIMIT, WIDTHS, error
from tallystream.sandbox.openai_data import PROJECTS
from tallystream.sandbox.reply import Reply, SandboxCall
from tallystream.schemas.openai import DAY_S, seconds

COUNTS = ("input_tokens", "input_cached_tokens", "input_cache_write_tokens", "output_tokens", "num_model_requests")
USAGE_GROUPS = ("project_id", "user_id", "api_key_id", "model", "batch", "service_tier")
CREATED = 1_780_000_000


class OpenAIBilling:
    """Answers calls that conform to the contract. Replacing `bill` restates the past. Without a bill (None), only the
    projects and keys of the generated organisation are answered.
    """

    def __init__(self, bill: OpenAIBill | None) -> None:
        self.bill = bill
        self._routes: dict[str, Callable[[SandboxCall, OpenAIBill], Reply]] = {
            "GET /organization/costs": _costs,
            "GET /organization/usage/completions": _usage,
        }
        self._lists: dict[str, Callable[[SandboxCall, OpenAIBill], Reply]] = {
            "GET /organization/projects": _projects,
            "GET /organization/projects/{project_id}/api_keys": _keys,
        }

    def handle(self, call: SandboxCall) -> Reply | None:
        """Return the answer, or None if the bill does not determine it."""
        if (answer := self._lists.get(call.operation)) is not None:
            return answer(call, self.bill or _MADE_UP)
        answer = self._routes.get(call.operation)
        return None if answer is None or self.bill is None else answer(call, self.bill)


_MADE_UP = OpenAIBill(
    keys={
        project: [
            f"key_{project.removeprefix('proj_')}_{person}_{letter}" for person in range(people) for letter in "ab"
        ]
        for project, people in PROJECTS.items()
    }
)


def _costs(call: SandboxCall, bill: OpenAIBill) -> Reply:
    groups = call.query.get("group_by", [])

    def rows(start: int, _: int) -> Iterator[dict[str, Any]]:
        day = f"{datetime.fromtimestamp(start, UTC):%Y-%m-%d}"
        found: dict[tuple[Any, ...], list[Any]] = {}
        for one in bill.costs:
            if one.day == day:
                place = (*(getattr(one, group, None) for group in groups), one.currency)
                found.setdefault(place, []).append(one)
        for place, costs in found.items():
            told = dict(zip(groups, place[:-1], strict=True))
            units = {one.quantity_unit for one in costs}
            whole = len(units) == 1 and all(one.quantity is not None for one in costs)
            yield {
                "object": "organization.costs.result",
                "amount": {"value": added([one.value for one in costs]), "currency": place[-1]},
                "line_item": told.get("line_item"),
                "project_id": told.get("project_id"),
                "api_key_id": told.get("api_key_id"),
                "quantity": _number(added([one.quantity for one in costs])) if whole else None,
                "quantity_unit": units.pop() if whole else None,
                "user_email": costs[0].user_email,
            }

    return _page(call, DAY_S, 7, COSTS_LIMIT, rows)


def _usage(call: SandboxCall, bill: OpenAIBill) -> Reply:
    groups = call.query.get("group_by", [])
    width, usual, most = WIDTHS[call.query.get("bucket_width", "1d")]

    def rows(start: int, end: int) -> Iterator[dict[str, Any]]:
        found: dict[tuple[Any, ...], list[OpenAIUse]] = {}
        for one in bill.usage:
            if start <= seconds(datetime.fromisoformat(one.hour)) < end:
                found.setdefault(tuple(getattr(one, group, None) for group in groups), []).append(one)
        for place, used in found.items():
            sums = {name: sum(getattr(one, name) for one in used) for name in COUNTS}
            uncached = sums["input_tokens"] - sums["input_cached_tokens"] - sums["input_cache_write_tokens"]
            yield (
                {"object": "organization.usage.completions.result", "input_uncached_tokens": uncached}
                | sums
                | dict.fromkeys(USAGE_GROUPS)
                | dict(zip(groups, place, strict=True))
            )

    return _page(call, width, usual, most, rows)


def _projects(call: SandboxCall, bill: OpenAIBill) -> Reply:
    projects = [
        {"id": name, "object": "organization.project", "name": name, "created_at": CREATED, "status": "active"}
        for name in sorted(bill.keys)
    ]
    return _list(call, projects)


def _keys(call: SandboxCall, bill: OpenAIBill) -> Reply:
    names = bill.keys.get(call.path["project_id"])
    if names is None:
        return error(404, "No such project.", "not_found")
    owner = {"type": "user", "user": {"id": "user_1", "name": "Ada Example", "email": "ada@example.com"}}
    keys = [
        {
            "object": "organization.project.api_key", "id": name, "name": name, "redacted_value": "sk-proj-***abcd",
            "created_at": CREATED, "last_used_at": None, "owner_project_access": "active", "owner": owner,
        }
        for name in sorted(names)
    ]  # fmt: skip
    return _list(call, keys)


def _page(
    call: SandboxCall, width: int, usual: int, most: int, rows: Callable[[int, int], Iterable[dict[str, Any]]]
) -> Reply:
    limit = call.query.get("limit", usual)
    if not 1 <= limit <= most:
        return error(400, f"limit must be between 1 and {most} for this bucket_width.")
    first = call.query["start_time"] // width * width
    end = min(call.query.get("end_time", int(call.now)), int(call.now) // width * width + width)
    page = call.query.get("page")
    start = first if not page else int(page.removeprefix("page_") or 0)
    starts = list(range(start, end, width)[: limit + 1])
    data = [
        {"object": "bucket", "start_time": at, "end_time": at + width, "results": list(rows(at, at + width))}
        for at in starts[:limit]
    ]
    more = len(starts) > limit
    return Reply(
        200, {"object": "page", "data": data, "has_more": more, "next_page": f"page_{starts[limit]}" if more else None}
    )


def _list(call: SandboxCall, items: list[dict[str, Any]]) -> Reply:
    limit, after = call.query.get("limit", 20), call.query.get("after")
    rest = [item for item in items if after is None or item["id"] > after]
    shown = rest[:limit]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
    return Reply(200, {"object": "list", "data": shown, "has_more": len(rest) > limit} | ends)


def _number(value: object) -> Any:
    """Return a quantity as the JSON number it is."""
    return Decimal(value) if isinstance(value, str) else value
