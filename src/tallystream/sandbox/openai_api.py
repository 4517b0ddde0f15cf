"""OpenAI's side: models, usage and costs, current and legacy, read only.

Keys decide by their beginning: `sk-admin-` may read /organization/*, `sess-` the dashboard, `sk-` the rest, and
`sk-sandbox` everything. Other keys are refused as OpenAI refuses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from tallystream.sandbox.openai_data import Source, UsageCell, day_of
from tallystream.sandbox.reply import Reply, SandboxCall
from tallystream.schemas.openai import DAY_S

WIDTHS = {"1m": (60, 60, 1440), "1h": (3600, 24, 168), "1d": (DAY_S, 7, 31)}
"""Width in seconds, and default and maximum of `limit`."""
COSTS_LIMIT = 180
OBJECTS = {"file_search_calls": "file_searches", "web_search_calls": "web_searches"}
"""The `object` of results for which it differs from the path."""
COUNTS = {
    "completions": (
        "input_tokens", "input_cached_tokens", "input_uncached_tokens", "output_tokens", "num_model_requests",
    ),
    "embeddings": ("input_tokens", "num_model_requests"),
    "moderations": ("input_tokens", "num_model_requests"),
    "images": ("images", "num_model_requests"),
    "audio_speeches": ("characters", "num_model_requests"),
    "audio_transcriptions": ("seconds", "num_model_requests"),
    "vector_stores": ("usage_bytes",),
    "code_interpreter_sessions": ("num_sessions",),
    "file_search_calls": ("num_requests",),
    "web_search_calls": ("num_model_requests", "num_requests"),
}  # fmt: skip
GROUPS = {
    "completions": ("project_id", "user_id", "api_key_id", "model", "batch", "service_tier"),
    "images": ("project_id", "user_id", "api_key_id", "model", "size", "source"),
    "vector_stores": ("project_id",),
    "code_interpreter_sessions": ("project_id",),
    "file_search_calls": ("project_id", "user_id", "api_key_id", "vector_store_id"),
    "web_search_calls": ("project_id", "user_id", "api_key_id", "model", "context_level"),
}
USUAL_GROUPS = ("project_id", "user_id", "api_key_id", "model")
FILTERS = {
    "project_ids": "project_id", "user_ids": "user_id", "api_key_ids": "api_key_id", "models": "model",
    "sizes": "size", "sources": "source", "vector_store_ids": "vector_store_id", "context_levels": "context_level",
}  # fmt: skip


def error(status: int, message: str, code: str | None = None, kind: str = "invalid_request_error") -> Reply:
    """Return an error in OpenAI's shape."""
    return Reply(status, {"error": {"message": message, "type": kind, "param": None, "code": code}})


def refuse(schemes: frozenset[str], token: str | None) -> Reply | None:
    """Return the error for a key without permission, or None if it is permitted."""
    if token is None:
        return error(401, "You didn't provide an API key.", "missing_api_key")
    if token.startswith("sk-sandbox"):
        return None
    if not token.startswith(("sk-", "sess-")):
        shown = f"{token[:3]}***{token[-2:]}" if len(token) > 8 else "***"
        return error(401, f"Incorrect API key provided: {shown}.", "invalid_api_key")
    if "AdminApiKeyAuth" in schemes and not token.startswith("sk-admin-"):
        return error(403, "You have insufficient permissions for this operation. Missing scopes: api.usage.read.")
    if "SessionAuth" in schemes and not token.startswith("sess-"):
        return error(
            401, "Your request to GET /dashboard/billing/usage must be made with a session key (that is, it can only be"
            " made from the browser)."
        )  # fmt: skip
    return None


class OpenAIApi:
    """Answers calls that conform to the contract."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._routes: dict[str, Callable[[SandboxCall], Reply]] = {
            "GET /models": self._models,
            "GET /models/{model}": self._model,
            "GET /usage": self._legacy_usage,
            "GET /dashboard/billing/usage": self._dashboard,
            "GET /organization/costs": self._costs,
        } | {f"GET /organization/usage/{kind}": self._usage for kind in COUNTS}

    def handle(self, call: SandboxCall) -> Reply:
        """Return the answer."""
        try:
            return self._routes[call.operation](call)
        except (ValueError, OverflowError):
            # Dates that the schema allows but that do not exist, such as the year 0.
            return error(400, "a date or time is out of range.")

    def _models(self, _: SandboxCall) -> Reply:
        return Reply(200, {"object": "list", "data": [_model(name) for name in self._source.models()]})

    def _model(self, call: SandboxCall) -> Reply:
        name = call.path["model"]
        if name not in self._source.models():
            return error(404, f"The model '{name}' does not exist", "model_not_found")
        return Reply(200, _model(name))

    def _legacy_usage(self, call: SandboxCall) -> Reply:
        sums: dict[tuple[Any, ...], list[int]] = {}
        for cell in self._cells(day_of(call.query["date"]) * DAY_S, DAY_S, call.now):
            if cell.kind not in ("completions", "embeddings"):
                continue
            key = (cell.at // 300 * 300, cell.kind, cell.model, cell.project_id, cell.api_key_id)
            one = sums.setdefault(key, [0, 0, 0])
            one[0] += cell.counts["num_model_requests"]
            one[1] += cell.counts["input_tokens"]
            one[2] += cell.counts.get("output_tokens", 0)
        data = [
            {
                "aggregation_timestamp": moment,
                "n_requests": requests,
                "operation": "completion" if kind == "completions" else "embedding",
                "snapshot_id": model,
                "n_context_tokens_total": context,
                "n_generated_tokens_total": generated,
                "project_id": project,
                "api_key_id": key,
            }
            for (moment, kind, model, project, key), (requests, context, generated) in sorted(sums.items())
        ]
        return Reply(200, {"object": "list", "data": data})

    def _dashboard(self, call: SandboxCall) -> Reply:
        first, last = day_of(call.query["start_date"]), day_of(call.query["end_date"])
        if not first < last:
            return error(400, "end_date must come after start_date.")
        if last - first > 100:
            return error(400, "The date range may be at most 100 days.")
        days = []
        for day in range(first, min(last, int(call.now) // DAY_S + 1)):
            items: dict[str, Decimal] = {}
            for cell in self._cells(day * DAY_S, DAY_S, call.now):
                for item, dollars in cell.costs.items():
                    items[item] = items.get(item, Decimal(0)) + dollars
            lines = [{"name": item, "cost": dollars * 100} for item, dollars in sorted(items.items())]
            days.append({"timestamp": Decimal(day * DAY_S), "line_items": lines})
        total = sum((line["cost"] for day in days for line in day["line_items"]), Decimal(0))  # type: ignore[attr-defined]
        return Reply(200, {"object": "list", "daily_costs": days, "total_usage": total})

    def _usage(self, call: SandboxCall) -> Reply:
        kind = call.operation.rpartition("/")[2]
        groups = call.query.get("group_by", [])
        width, usual, most = WIDTHS[call.query.get("bucket_width", "1d")]
        fields = GROUPS.get(kind, USUAL_GROUPS)

        def rows(cells: Iterable[UsageCell]) -> list[dict[str, Any]]:
            sums: dict[tuple[Any, ...], dict[str, int]] = {}
            for cell in cells:
                if cell.kind == kind and _passes(cell, call.query):
                    one = sums.setdefault(
                        tuple(_label(cell, group) for group in groups), dict.fromkeys(COUNTS[kind], 0)
                    )
                    for name in one:
                        one[name] += cell.counts[name]
            head = {"object": f"organization.usage.{OBJECTS.get(kind, kind)}.result"}
            return [
                head | one | dict.fromkeys(fields) | dict(zip(groups, key, strict=True))
                for key, one in sorted(sums.items(), key=lambda item: str(item[0]))
            ]

        return self._page(call, width, usual, most, rows)

    def _costs(self, call: SandboxCall) -> Reply:
        groups = call.query.get("group_by", [])

        def rows(cells: Iterable[UsageCell]) -> list[dict[str, Any]]:
            sums: dict[tuple[Any, ...], Decimal] = {}
            for cell in cells:
                if not _passes(cell, call.query):
                    continue
                for item, dollars in cell.costs.items():
                    key = tuple(item if group == "line_item" else _label(cell, group) for group in groups)
                    sums[key] = sums.get(key, Decimal(0)) + dollars
            empty = dict.fromkeys(("line_item", "project_id", "api_key_id", "quantity", "quantity_unit"))
            return [
                {"object": "organization.costs.result", "amount": {"value": dollars, "currency": "usd"}}
                | empty
                | dict(zip(groups, key, strict=True))
                for key, dollars in sorted(sums.items(), key=lambda item: str(item[0]))
            ]

        return self._page(call, DAY_S, 7, COSTS_LIMIT, rows)

    def _page(
        self,
        call: SandboxCall,
        width: int,
        usual: int,
        most: int,
        rows: Callable[[Iterable[UsageCell]], list[dict[str, Any]]],
    ) -> Reply:
        limit = call.query.get("limit", usual)
        if not 1 <= limit <= most:
            return error(400, f"limit must be between 1 and {most} for this bucket_width.")
        first = call.query["start_time"] // width * width
        end = min(call.query.get("end_time", int(call.now)), int(call.now) // width * width + width)
        start = first
        if page := call.query.get("page"):
            offset = page.removeprefix("page_")
            if not offset.isdigit() or len(offset) > 9:
                return error(400, "page is not a cursor of this query.")
            start = first + int(offset) * width
        starts = list(range(start, end, width)[: limit + 1]) if start >= 0 else []
        data = [
            {"object": "bucket", "start_time": one, "end_time": one + width,
             "results": rows(self._cells(one, width, call.now))}
            for one in starts[:limit]
        ]  # fmt: skip
        more = len(starts) > limit
        cursor = f"page_{(start - first) // width + limit}" if more else None
        return Reply(200, {"object": "page", "data": data, "has_more": more, "next_page": cursor})

    def _cells(self, start: int, length: int, now: float) -> list[UsageCell]:
        """Return the cells of a stretch of one day or less that have happened by now."""
        end = min(start + length, now)
        return [cell for cell in self._source.day(start // DAY_S) if start <= cell.at < end]


def _model(name: str) -> dict[str, Any]:
    owner = "acme-org" if name.startswith("ft:") else "system"
    return {"id": name, "object": "model", "created": 1_700_000_000 + sum(name.encode()) * 1000, "owned_by": owner}


def _label(cell: UsageCell, group: str) -> Any:
    return getattr(cell, group) if group in USUAL_GROUPS else cell.labels.get(group)


def _passes(cell: UsageCell, query: dict[str, Any]) -> bool:
    if (batch := query.get("batch")) is not None and cell.labels.get("batch") != batch:
        return False
    return all(_label(cell, field) in query[name] for name, field in FILTERS.items() if query.get(name))
