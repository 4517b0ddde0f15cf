"""Anthropic's API: analytics cost and usage, the legacy reports, workspaces and keys, from a configured bill.

Keys begin with sk-ant-; `sk-sandbox` is accepted, too. The analytics endpoints require their beta header.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tallystream.sandbox.billed import AnthropicBill, AnthropicCost, AnthropicUse, added
from tallystream.sandbox.reply import Reply, SandboxCall

VERSION, BETA = "2023-06-01", "analytics-usage-cost-2026-08-24"
ANALYTICS = "/organizations/analytics/"
WIDTHS = {"1m": timedelta(minutes=1), "1h": timedelta(hours=1), "1d": timedelta(days=1)}
LIMITS = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}
SPAN = timedelta(days=31)
TOKENS = ("uncached_input_tokens", "cache_read_input_tokens", "output_tokens")
WRITES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
CREATED = "2026-06-01T00:00:00Z"


def error(status: int, message: str, kind: str = "invalid_request_error") -> Reply:
    """Return an error in Anthropic's shape."""
    return Reply(status, {"type": "error", "error": {"type": kind, "message": message}, "request_id": None})


def refuse(path: str, headers: Mapping[str, str]) -> Reply | None:
    """Return the error for a request with these headers, or None if it is permitted."""
    key = headers.get("x-api-key", "")
    if not key.startswith(("sk-ant-", "sk-sandbox")):
        return error(401, "invalid x-api-key", "authentication_error")
    if headers.get("anthropic-version") != VERSION:
        return error(400, "anthropic-version: header is required")
    if path.startswith(ANALYTICS) and BETA not in headers.get("anthropic-beta", ""):
        return error(404, "Not found: this endpoint needs its beta header", "not_found_error")
    return None


class AnthropicApi:
    """Answers calls that conform to the contract. Replacing `bill` restates the past."""

    def __init__(self, bill: AnthropicBill) -> None:
        self.bill = bill
        self._routes: dict[str, Callable[[SandboxCall], Reply]] = {
            "GET /organizations/analytics/cost": self._cost,
            "GET /organizations/analytics/usage": self._usage,
            "GET /organizations/cost_report": self._cost_report,
            "GET /organizations/usage_report/messages": self._usage_report,
            "GET /organizations/workspaces": self._workspaces,
            "GET /organizations/api_keys": self._api_keys,
        }

    def handle(self, call: SandboxCall) -> Reply:
        """Return the answer."""
        if ANALYTICS in call.operation and not self.bill.analytics:
            return error(400, "This organization cannot use the analytics API.")
        try:
            return self._routes[call.operation](call)
        except (ValueError, OverflowError):
            return error(400, "a time is out of range, or page is not one of this query")

    def _cost(self, call: SandboxCall) -> Reply:
        def render(start: datetime, end: datetime, groups: list[str], rows: list[AnthropicCost]) -> dict[str, Any]:
            return _head(start, end, groups, rows[0]) | {
                "cost": {
                    "amount": added([row.cents for row in rows]),
                    "list_amount": added([row.list_cents or row.cents for row in rows]),
                    "currency": "USD",
                    "requests": None,
                }
            }

        return self._rows(call, self.bill.costs, render)

    def _usage(self, call: SandboxCall) -> Reply:
        def render(start: datetime, end: datetime, groups: list[str], rows: list[AnthropicUse]) -> dict[str, Any]:
            used = _tokens(rows)
            total = sum(used[name] for name in TOKENS) + sum(used["cache_creation"].values())
            requests = sum(row.requests for row in rows)
            return _head(start, end, groups, rows[0]) | {"usage": used | {"total_tokens": total, "requests": requests}}

        return self._rows(call, self.bill.usage, render)

    def _rows(self, call: SandboxCall, source: list[Any], render: Callable[..., dict[str, Any]]) -> Reply:
        """Answer one row a bucket and group, as the analytics do."""
        start = _time(call.query["starting_at"])
        end = _time(call.query.get("ending_at") or datetime.fromtimestamp(call.now, UTC).isoformat())
        if not start < end or end - start > SPAN:
            return error(400, "ending_at must come after starting_at, by 31 days at most")
        width = WIDTHS[call.query.get("time_bucket_width", "1d")]
        groups = call.query.get("group_by[]", [])
        found: dict[tuple[Any, ...], list[Any]] = {}
        for row in source:
            at = _time(row.hour)
            if start <= at < min(end, datetime.fromtimestamp(call.now, UTC)):
                bucket = start + (at - start) // width * width
                found.setdefault((bucket, *(getattr(row, group, None) for group in groups)), []).append(row)
        rows = [
            render(place[0], place[0] + width, groups, members)
            for place, members in sorted(found.items(), key=lambda item: str(item[0]))
        ]
        limit, page = call.query.get("limit", 20), call.query.get("page")
        first = int(page.removeprefix("page_")) if page else 0
        more = len(rows) > first + limit
        return Reply(
            200,
            {
                "data": rows[first : first + limit],
                "has_more": more,
                "next_page": f"page_{first + limit}" if more else None,
                "data_refreshed_at": self.bill.refreshed_at or _iso(datetime.fromtimestamp(int(call.now), UTC)),
            },
        )

    def _cost_report(self, call: SandboxCall) -> Reply:
        def rows(start: datetime, end: datetime, groups: list[str]) -> list[dict[str, Any]]:
            told = {"workspace_id"} & set(groups)
            described = "description" in groups
            names = ("model", "token_type", "cost_type", "context_window", "service_tier")
            found: dict[tuple[Any, ...], list[AnthropicCost]] = {}
            for row in self.bill.costs:
                if start <= _time(row.hour) < end:
                    place = (
                        row.workspace_id if told else None,
                        *(getattr(row, n) if described else None for n in names),
                    )
                    found.setdefault(place, []).append(row)
            return [
                {
                    "amount": added([row.cents for row in members]),
                    "currency": "USD",
                    "workspace_id": place[0],
                    "description": members[0].description if described else None,
                    "inference_geo": None,
                }
                | dict(zip(names, place[1:], strict=True))
                for place, members in found.items()
            ]

        return _buckets(call, rows)

    def _usage_report(self, call: SandboxCall) -> Reply:
        def rows(start: datetime, end: datetime, groups: list[str]) -> list[dict[str, Any]]:
            found: dict[tuple[Any, ...], list[AnthropicUse]] = {}
            for row in self.bill.usage:
                if start <= _time(row.hour) < end:
                    found.setdefault(tuple(getattr(row, group, None) for group in groups), []).append(row)
            return [_tokens(members) | dict(zip(groups, place, strict=True)) for place, members in found.items()]

        return _buckets(call, rows)

    def _workspaces(self, call: SandboxCall) -> Reply:
        names = {row.workspace_id for row in (*self.bill.costs, *self.bill.usage) if row.workspace_id}
        rows = [
            {
                "id": name,
                "type": "workspace",
                "name": name,
                "created_at": CREATED,
                "display_color": "#000000",
                "tags": {},
            }
            for name in sorted(names)
        ]
        return _list(call, rows)

    def _api_keys(self, call: SandboxCall) -> Reply:
        keys = {row.api_key_id: row.workspace_id for row in (*self.bill.costs, *self.bill.usage) if row.api_key_id}
        rows = []
        for name, workspace in sorted(keys.items()):
            scope = {"type": "workspace", "workspace_id": workspace} if workspace else {"type": "organization"}
            rows.append({"id": name, "type": "api_key", "name": name, "created_at": CREATED, "status": "active",
                         "scope": scope, "partial_key_hint": None})  # fmt: skip
        return _list(call, rows)


def _head(start: datetime, end: datetime, groups: list[str], row: object) -> dict[str, Any]:
    group = {name: getattr(row, name, None) for name in groups}
    return {"starting_at": _iso(start), "ending_at": _iso(end), "group": group}


def _tokens(rows: list[AnthropicUse]) -> dict[str, Any]:
    sums: dict[str, Any] = {name: sum(getattr(row, name) for row in rows) for name in TOKENS}
    writes = {name: sum(getattr(row, name) for row in rows) for name in WRITES}
    return sums | {"cache_creation": writes, "server_tool_use": {"web_search_requests": 0}}


def _buckets(call: SandboxCall, rows: Callable[[datetime, datetime, list[str]], list[dict[str, Any]]]) -> Reply:
    """Answer whole buckets, idle ones too, as the legacy reports do."""
    width_name = call.query.get("bucket_width", "1d")
    width, (usual, most) = WIDTHS[width_name], LIMITS[width_name]
    limit = call.query.get("limit", usual)
    if not 1 <= limit <= most:
        return error(400, f"limit must be between 1 and {most}")
    first = _time(call.query["starting_at"])
    now = datetime.fromtimestamp(call.now, UTC)
    end = min(_time(call.query["ending_at"]), now) if call.query.get("ending_at") else now
    page = call.query.get("page")
    start = first + width * (int(page.removeprefix("page_")) if page else 0)
    data: list[dict[str, Any]] = []
    while start < end and len(data) < limit:
        results = rows(start, start + width, call.query.get("group_by[]", []))
        data.append({"starting_at": _iso(start), "ending_at": _iso(start + width), "results": results})
        start += width
    more = start < end
    cursor = f"page_{(start - first) // width}" if more else None
    return Reply(200, {"data": data, "has_more": more, "next_page": cursor})


def _list(call: SandboxCall, items: list[dict[str, Any]]) -> Reply:
    limit, after = call.query.get("limit", 20), call.query.get("after_id")
    rest = [item for item in items if after is None or item["id"] > after]
    shown = rest[:limit]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
    return Reply(200, {"data": shown, "has_more": len(rest) > limit} | ends)


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).astimezone(UTC)


def _iso(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
