"""Recorded runs of agent SDKs and CLIs through the whole product, twice: each call that the model API served counts
once.

The recordings are not part of the repository (folders `shared/captures-genai*` beside the checkout).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_captures_genai import FOLDERS, LOGS_COST, counts, recorded
from tests.support.product import product
from tests.support.replay import Body, Capture, export, post

from tallystream.schemas.clients.genai import normalise


def wanted(folder: Path) -> Counter[str]:
    """Return totals by model as computed from the spans, which tests/contract checks call by call."""
    total: Counter[str] = Counter()
    for call in normalise(recorded(folder)):
        for field, count in counts(call).items():
            total[f"{call.event['model']} {field}"] += count
        total[f"{call.event['model']} requests"] += 1
    return total


def got(rows: list[dict[str, Any]]) -> Counter[str]:
    """Return totals by model out of table rows."""
    total: Counter[str] = Counter()
    for row in rows:
        written = row["cache_write_5m"] + row["cache_write_1h"]
        fields = {
            "input": row["input_uncached"] + row["cache_read"] + written,
            "cached": row["cache_read"],
            "cache_write": written,
            "output": row["output"],
            "reasoning": row["reasoning"],
            "requests": row["requests"],
        }
        for field, count in fields.items():
            total[f"{row['model']} {field}"] += count
    return total


@pytest.mark.skipif(not FOLDERS, reason="there are no recordings beside this checkout")
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_recorded_sdk_runs_cost_exactly_what_was_served(tmp_path: Path) -> None:
    """All recordings over one connection, one after the other, twice; gRPC calls are repeated as gRPC calls."""
    want: Counter[str] = Counter()
    bodies: list[Body] = []
    for folder in FOLDERS:
        capture = Capture(folder)
        if capture.truth["client"] not in LOGS_COST:
            want += wanted(folder)
            bodies += [body for body in capture.bodies() if body.signal == "traces"]
    with product(tmp_path / "data", {"TALLYSTREAM_LATENESS": "P3650D", "TALLYSTREAM_CALLS_HOLD": "PT3S"}) as running:
        connection = running.json("connections", "create", "codex", "--name", "recordings")
        for _ in range(2):
            for body in bodies:
                if body.grpc:
                    export(connection["grpc"].rpartition("/")[2], tuple(connection["headers"].items()), body)
                else:
                    assert post(connection["traces_url"], body) == 200
            running.cli("wait", "--caught-up", "--timeout", "180")
            table = running.json("cost", "sessions")
            assert table["complete"]
            assert +got(table["rows"]) == +want
            assert running.json("deadletters", "list")["deadletters"] == []
