"""OpenAI's data and telemetry through all processes into Port: every entity must equal an independent computation.

The expected entities are computed from the fleet's truth and from OpenAI's own answers, without the product's code.
"""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.test_dashboards import sandbox
from tests.support.port_rig import differences
from tests.support.product import product
from tests.support.waiting import ANSWER, eventually

from tallystream.simulator import Truth

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
DAY = 86_400
ASKS = ("completions", "embeddings", "moderations", "images", "audio_speeches", "audio_transcriptions")
COUNTS = {
    "requests": ("requests",), "unpriced_requests": ("unpriced_requests",), "total_tokens": ("total_tokens",),
    "input_tokens": ("input_uncached",), "cache_read_tokens": ("cache_read",),
    "cache_write_tokens": ("cache_write_5m", "cache_write_1h"), "output_tokens": ("output",),
    "reasoning_tokens": ("reasoning",), "tool_tokens": ("tool",),
}  # fmt: skip


def sessions(truth: dict[str, Any], connection: str) -> dict[str, Any]:
    """Return the expected entity of each session."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in truth["acknowledged"]["rows"]:
        found.setdefault(row["session_id"], []).append(row)
    return {
        f"{connection}:{session}": {
            "title": session,
            "properties": {
                "session_id": session, "client": "codex", "started_at": min(row["hour"] for row in rows),
                "last_hour_at": max(row["hour"] for row in rows),
                "model_names": sorted({row["model"] for row in rows}), "cost_exact": cost(rows),
                **{name: sum(row[part] for row in rows for part in parts) for name, parts in COUNTS.items()},
            },
            "relations": {"connection": connection, "models": sorted({row["model"] for row in rows})},
        }
        for session, rows in found.items()
    }  # fmt: skip


def cost(rows: list[dict[str, Any]]) -> str | None:
    priced = [Decimal(row["cost_usd"]) for row in rows if row["cost_usd"] is not None]
    return f"{sum(priced, Decimal(0)).normalize():f}" if priced else None


def pages(url: str, path: str, **params: object) -> Iterator[dict[str, Any]]:
    """Yield the buckets of an endpoint."""
    page: str | None = None
    while True:
        query = urllib.parse.urlencode(params | ({"page": page} if page else {}), doseq=True)
        request = urllib.request.Request(f"{url}{path}?{query}", headers={"Authorization": "Bearer sk-sandbox"})
        with urllib.request.urlopen(request, timeout=ANSWER) as response:
            answer = json.load(response, parse_float=Decimal)
        yield from answer["data"]
        page = answer.get("next_page")
        if not answer.get("has_more"):
            return


def openai(url: str, start: int, end: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the expected daily entities and those of models and days, for complete days."""
    days: dict[str, dict[str, Any]] = {}
    models: dict[str, dict[str, Any]] = {}
    of = {"start_time": start, "end_time": end, "bucket_width": "1d"}
    for bucket in pages(url, "/organization/costs", **of, limit=30):
        day = f"{datetime.fromtimestamp(bucket['start_time'], UTC):%Y-%m-%d}"
        amounts = [Decimal(row["amount"]["value"]) for row in bucket["results"]]
        days[day] = {"total_cost": sum(amounts, Decimal(0)), "total_requests": 0, "total_tokens": 0}
    for kind in ASKS:
        for bucket in pages(url, f"/organization/usage/{kind}", **of, group_by=["model"], limit=30):
            day = f"{datetime.fromtimestamp(bucket['start_time'], UTC):%Y-%m-%d}"
            for row in bucket["results"]:
                tokens = row.get("input_tokens", 0) + row.get("output_tokens", 0)
                days[day]["total_requests"] += row["num_model_requests"]
                days[day]["total_tokens"] += tokens
                if row["model"]:
                    name = f"{row['model']}-{day}".replace(" ", "=20")
                    one = models.setdefault(name, {"requests": 0, "tokens": 0, "model": row["model"]})
                    one["requests"] += row["num_model_requests"]
                    one["tokens"] += tokens
    return (
        {f"daily-{day}": {"properties": {"date": f"{day}T00:00:00Z"} | sums} for day, sums in days.items()},
        {name: {"properties": sums | {"date": f"{name[-10:]}T00:00:00Z"}} for name, sums in models.items()},
    )


def test_every_session_and_documented_kind_is_exact_in_port(tmp_path: Path) -> None:
    with sandbox() as environment, product(tmp_path / "data", environment) as running:
        port = environment["TALLYSTREAM_PORT_BASE_URL"].removesuffix("/port")

        def entities() -> dict[str, dict[str, Any]]:
            with urllib.request.urlopen(f"{port}/sandbox/port/entities", timeout=ANSWER) as response:
                found: dict[str, dict[str, Any]] = {}
                for one in json.load(response, parse_float=Decimal):
                    found.setdefault(one["blueprint"], {})[one["identifier"]] = one
                return found

        connection = tmp_path / "connection.json"
        connection.write_text(running.cli("connections", "create", "codex", "--json"))
        truth = tmp_path / "truth.json"
        running.cli(
            "simulate", "--connection", str(connection), "--truth", str(truth), "--agents", "20", "--requests", "600",
            "--seed", "7", "--duplicates", "0.1", "--client", "codex",
        )  # fmt: skip
        running.cli("wait", "--caught-up", "--timeout", "180")
        held = entities()  # read once, because everything is there after `wait --caught-up`
        must = sessions(Truth.load(truth).document(), json.loads(connection.read_text())["connection_id"])
        assert must
        found = {name: _like(must[name], one) for name, one in held["coding_agent_session"].items() if name in must}
        assert differences(must, found) == {}
        assert len(held["coding_agent_session"]) == len(must)

        today = int(time.time()) // DAY * DAY
        url = environment["TALLYSTREAM_OPENAI_BASE_URL"]
        daily, models = openai(url, today - 3 * DAY, today)
        assert len(daily) == 3
        assert models

        def as_openai_says() -> bool:
            now = entities()
            return not wrong(daily, now.get("openai_daily_usage", {})) and not wrong(
                models, now.get("openai_model_usage", {})
            )

        def differs() -> str:
            return f"differs: {list(wrong(daily, entities().get('openai_daily_usage', {})).items())[:3]}"

        eventually(as_openai_says, differs)
        listed = next(_models(url))
        named = set(listed) | {model for one in must.values() for model in one["relations"]["models"]}

        def models_in_port() -> set[str]:
            return {one["properties"]["modelId"] for one in entities().get("openai_model", {}).values()}

        eventually(lambda: models_in_port() == named, lambda: f"models differ: {models_in_port() ^ named}")
        with urllib.request.urlopen(f"{port}/sandbox/requests", timeout=ANSWER) as response:
            assert all(one["status"] < 500 for one in json.load(response)), "an answer that is against the API's spec"


def wrong(must: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    return differences(must, {name: _like(must[name], one) for name, one in held.items() if name in must})


def _like(must: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of an entity for which there are expected values."""
    return {
        part: {name: one[part].get(name) for name in value} if isinstance(value, dict) else one[part]
        for part, value in must.items()
    }


def _models(url: str) -> Iterator[list[str]]:
    request = urllib.request.Request(f"{url}/models", headers={"Authorization": "Bearer sk-sandbox"})
    with urllib.request.urlopen(request, timeout=ANSWER) as response:
        yield [one["id"] for one in json.load(response)["data"]]
