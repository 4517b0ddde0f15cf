"""The sandbox's OpenAI over HTTP: endpoints that agree with each other, keys, pages, and usage from a truth file."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.support.clock import WallHandClock
from tests.support.openai_rig import DAY, NOON, TODAY, ask, day

from tallystream.sandbox import Sandbox, SandboxConfig
from tallystream.schemas import exact
from tallystream.schemas.errors import UsageError

START = (TODAY - 6) * DAY


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    served = Sandbox(SandboxConfig(seed=5), WallHandClock(NOON))
    await served.start()
    yield served
    await served.stop()
    assert served.violations() == []


async def test_four_endpoints_report_the_same_usage(sandbox: Sandbox) -> None:
    costs = await ask(sandbox, "/organization/costs", [("start_time", str(START)), ("group_by", "line_item")])
    spent = [sum((row["amount"]["value"] for row in one["results"]), Decimal(0)) for one in costs["data"]]
    billing = await ask(sandbox, "/dashboard/billing/usage", [("start_date", day(-6)), ("end_date", day(1))])
    cents = [sum((line["cost"] for line in one["line_items"]), Decimal(0)) for one in billing["daily_costs"]]
    assert [100 * dollars for dollars in spent] == cents
    assert billing["total_usage"] == sum(cents)
    used = {}
    for width in ("1d", "1h", "1m"):
        limit = {"1d": "7", "1h": "168", "1m": "1440"}[width]
        params = [("start_time", str(START)), ("bucket_width", width), ("limit", limit)]
        used[width] = Decimal(0)
        while True:
            page = await ask(sandbox, "/organization/usage/completions", params)
            used[width] += sum(row["output_tokens"] for one in page["data"] for row in one["results"])
            if not page["has_more"]:
                break
            params = [*[one for one in params if one[0] != "page"], ("page", page["next_page"])]
    legacy = 0
    for offset in range(-6, 1):
        answer = await ask(sandbox, "/usage", [("date", day(offset))])
        legacy += sum(row["n_generated_tokens_total"] for row in answer["data"])
    assert used["1d"] == used["1h"] == used["1m"] == legacy > 0


async def test_each_seed_generates_another_organisation(sandbox: Sandbox) -> None:
    texts = []
    for seed in (5, 5, 6):
        other = Sandbox(SandboxConfig(seed=seed), WallHandClock(NOON))
        await other.start()
        try:
            texts.append(exact.dumps(await ask(other, "/usage", [("date", day(-1))])))
        finally:
            await other.stop()
    assert texts[0] == texts[1] != texts[2]


async def test_rows_of_two_keys_can_share_model_and_time(sandbox: Sandbox) -> None:
    """Such rows break mappings that identify a row by model and time, so the sandbox must have them."""
    seen = [
        (row["snapshot_id"], row["aggregation_timestamp"])
        for offset in range(-30, 0)
        for row in (await ask(sandbox, "/usage", [("date", day(offset))]))["data"]
    ]
    assert len(set(seen)) < len(seen)


async def test_usage_of_today_grows_and_yesterdays_is_fixed() -> None:
    clock = WallHandClock(NOON)
    sandbox = Sandbox(SandboxConfig(seed=5), clock)
    await sandbox.start()
    try:
        before = [await ask(sandbox, "/usage", [("date", day(offset))]) for offset in (-1, 0)]
        clock.seconds += 6 * 3600
        after = [await ask(sandbox, "/usage", [("date", day(offset))]) for offset in (-1, 0)]
    finally:
        await sandbox.stop()
    assert after[0] == before[0]
    assert len(after[1]["data"]) > len(before[1]["data"])


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        (None, "/models", 401),
        ("nonsense-key", "/models", 401),
        ("sk-user-key", "/models", 200),
        ("sk-user-key", f"/organization/costs?start_time={START}", 403),
        ("sk-admin-key", f"/organization/costs?start_time={START}", 200),
        ("sk-user-key", "/dashboard/billing/usage?start_date=2026-11-01&end_date=2026-11-02", 401),
        ("sess-key", "/dashboard/billing/usage?start_date=2026-11-01&end_date=2026-11-02", 200),
        ("sk-admin-key", "/organization/costs", 400),
        ("sk-admin-key", f"/organization/costs?start_time={START}&limit=181", 400),
        ("sk-admin-key", f"/organization/costs?start_time={START}&group_by=colour", 400),
        ("sk-user-key", "/usage?date=yesterday", 400),
        ("sk-user-key", "/dashboard/billing/usage", 401),
    ],
)
async def test_wrong_keys_and_requests_get_openais_errors(
    sandbox: Sandbox, token: str | None, path: str, status: int
) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{sandbox.url}/openai/v1{path}") as answer,
    ):
        assert answer.status == status
        body = await answer.json()
        assert ("error" in body) == (status != 200)
        if token and len(token) > 8:
            assert token not in json.dumps(body)


async def test_too_many_requests_get_429_with_retry_after(sandbox: Sandbox) -> None:
    sandbox.limits.configure("openai", 300, 2)
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer sk-x"}) as session:
        statuses = []
        for _ in range(4):
            async with session.get(f"{sandbox.url}/openai/v1/models") as answer:
                statuses.append((answer.status, answer.headers.get("Retry-After")))
    assert [status for status, _ in statuses] == [200, 200, 429, 429]
    assert all(int(after or 0) >= 1 for status, after in statuses if status == 429)


def row(**changes: object) -> dict[str, Any]:
    return {
        "client": "codex", "session_id": "s-1", "hour": "2026-11-20T14:00:00Z", "model": "gpt-5", "requests": 3,
        "service_tier": None, "attribution": {"team": "search"}, "input_uncached": 100, "cache_read": 50,
        "cache_write_5m": 0, "cache_write_1h": 0, "output": 20, "cost_usd": "0.000331",
    } | changes  # fmt: skip


async def test_usage_from_a_truth_file_matches_the_telemetry(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    rows = [row(), row(session_id="s-2", cost_usd=None), row(client="claude", model="opus")]
    path.write_text(json.dumps({"rows": rows}))
    sandbox = Sandbox(SandboxConfig(truth=path), WallHandClock(NOON))
    await sandbox.start()
    try:
        params = [("start_time", str(START)), ("group_by", "model"), ("group_by", "project_id")]
        usage = await ask(sandbox, "/organization/usage/completions", params)
        costs = await ask(sandbox, "/organization/costs", params[:1])
        models = await ask(sandbox, "/models", [])
    finally:
        await sandbox.stop()
    (found,) = [result for one in usage["data"] for result in one["results"]]
    assert (found["model"], found["project_id"], found["num_model_requests"]) == ("gpt-5", "proj_search", 6)
    assert (found["input_tokens"], found["input_cached_tokens"], found["output_tokens"]) == (300, 100, 40)
    assert [result["amount"]["value"] for one in costs["data"] for result in one["results"]] == [Decimal("0.000331")]
    assert [one["id"] for one in models["data"]] == ["gpt-5"]


@pytest.mark.parametrize("text", [None, "{", "{}", '{"rows": [{}]}'])
def test_truth_file_without_rows_is_an_error(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "truth.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError):
        Sandbox(SandboxConfig(truth=path))
