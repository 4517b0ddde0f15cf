"""The doctor's findings about coverage."""

from __future__ import annotations

from typing import Any

import pytest

from tallystream.doctor import coverage
from tallystream.schemas.status import CoverageStatus

LOST = CoverageStatus(
    connection_id="codex-7f3a", client="codex", counted=0, witnessed=60_000, missing=60_000, witness="spans",
    versions=["0.168.0", "0.169.0"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({}, ["codex-7f3a (codex 0.169.0) tell of 60,000 tokens"]),
        ({"missing": 10_000}, []),
        ({"counted": 2_000_000}, []),
        ({"counted": 540_000}, ["only 90% of the known tokens of codex-7f3a (codex 0.169.0)"]),
        ({"versions": [], "counted": 60_000}, ["only 50% of the known tokens of codex-7f3a (codex)"]),
    ],
)
def test_findings_about_coverage(held: dict[str, Any], words: list[str]) -> None:
    found = coverage.judge(LOST.model_copy(update=held))
    assert [one.check for one in found] == ["coverage"] * len(words)
    assert all(word in one.what for word, one in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("client", "setting"),
    [("codex", "exporter"), ("claude", "OTEL_LOGS_EXPORTER"), ("gemini", "OTLP_ENDPOINT"), ("other", "logs")],
)
def test_missing_logs_name_the_client_s_setting(client: str, setting: str) -> None:
    (found,) = coverage.judge(LOST.model_copy(update={"client": client}))
    assert setting in found.step
