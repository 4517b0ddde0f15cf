"""Recorded runs of real coding agents through the whole product: each token that the model API served counts once.

The recordings are not part of the repository (a folder `shared/captures` beside the checkout). Without them, the same
rules are tested on generated bodies by `test_fleet.py`.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import SHARED
from tests.support.product import Product, product
from tests.support.replay import Capture, Totals, export, post

COUNTS = ("requests", "input_uncached", "cache_read", "cache_write", "output", "reasoning", "tool")

# Counts that the client itself never sent, to subtract: (requests, uncached, cached, output, reasoning).
NEVER_SENT = {
    "codex-binary-incomplete": (1, 308, 1792, 4096, 4000),
    "codex-json-failexit": (1, 208, 1792, 72, 32),
    "codex-json-metricsonly": (2, 934, 768, 17, 3),
}


def folders() -> list[Path]:
    """Return the recordings of all three clients, over HTTP and gRPC."""
    captures = SHARED / "captures"
    return sorted(captures.glob("*-*")) if captures.is_dir() else []


def expected(capture: Capture) -> dict[tuple[str, str], Totals]:
    """Return the truth without the usage that the client never sent."""
    want = capture.expected()
    if capture.name in NEVER_SENT:
        assert capture.truth["expect_diff"]
        requests, uncached, cached, output, reasoning = NEVER_SENT[capture.name]
        ((key, totals),) = want.items()
        for field, missing in zip(
            ("requests", "input_uncached", "cache_read", "output", "reasoning"),
            (requests, uncached, cached, output, reasoning),
            strict=True,
        ):
            totals[field] -= missing
        if not totals["requests"]:
            assert not any(totals.values())
            del want[key]
    return want


def by_session(rows: list[dict[str, Any]]) -> dict[tuple[str, str], Totals]:
    """Add rows up by (session, model)."""
    sums: dict[tuple[str, str], Totals] = defaultdict(lambda: dict.fromkeys(COUNTS, 0))
    for row in rows:
        found = sums[row["session_id"], row["model"]]
        found["cache_write"] += row["cache_write_5m"] + row["cache_write_1h"]
        for field in COUNTS:
            found[field] += row.get(field, 0)
    return dict(sums)


@pytest.mark.skipif(not folders(), reason="there are no recordings beside this checkout")
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_recorded_runs_cost_exactly_what_was_served(tmp_path: Path) -> None:
    captures = [Capture(folder) for folder in folders()]
    want = {key: totals for capture in captures for key, totals in expected(capture).items()}
    assert {body.grpc for capture in captures for body in capture.bodies()} == {False, True}
    complete = [capture for capture in captures if capture.client == "codex" and capture.name not in NEVER_SENT]
    hours = {key: n for capture in complete for key, n in capture.expected_hours().items()}
    with product(tmp_path / "data", {"TALLYSTREAM_LATENESS": "P3650D"}) as running:
        connections = {
            client: running.json("connections", "create", client) for client in ("codex", "claude", "gemini")
        }
        connection = connections["codex"]
        for _ in range(2):
            for capture in captures:
                own = connections[capture.client]
                for body in capture.bodies():
                    if body.grpc:
                        export(own["grpc"], tuple(own["headers"].items()), body)
                    else:
                        assert post(own[f"{body.signal}_url"], body) == 200, capture.name
            running.cli("wait", "--caught-up", "--timeout", "180")
            sessions = running.json("cost", "sessions")
            assert sessions["complete"]
            assert by_session(sessions["rows"]) == want
            rows = running.json("cost", "session-hours")["rows"]
            got = {(row["session_id"], row["hour"], row["model"]): row["requests"] for row in rows}
            assert {key: n for key, n in got.items() if key in hours} == hours
            assert running.json("deadletters", "list")["deadletters"] == []
        told = [row for row in coverage_of(running, connection) if row["witness"]]
        assert {row["session_id"] for row in told} <= {session for session, _ in want}
        assert len(told) >= 15
        assert all((row["missing_tokens"], row["seen_share"]) == (0, "1.0000") for row in told)
        lost = running.json("connections", "create", "codex", "--name", "without logs")
        dropped = next(capture for capture in captures if capture.name == "codex-binary-subagent")
        for body in dropped.bodies():
            if body.signal != "logs":
                assert post(lost[f"{body.signal}_url"], body) == 200
        running.cli("wait", "--caught-up", "--timeout", "180")  # under load, some of it may be in the spool
        missing = {row["session_id"]: row["missing_tokens"] for row in coverage_of(running, lost)}
        assert missing == {one["session_id"]: served(one["totals"]) for one in dropped.truth["totals"]}


def coverage_of(running: Product, connection: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the coverage of a connection's sessions."""
    asked = ("coverage", "--by", "session", "--since", "3650d", "--connection", connection["connection_id"])
    rows: list[dict[str, Any]] = running.json(*asked)["rows"]
    return rows


def served(totals: dict[str, int]) -> int:
    """Return the tokens of a session; OpenAI's input includes cached ones."""
    return totals["input"] + totals["output"]
