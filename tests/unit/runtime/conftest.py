"""A table without Kafka: nothing connects before an app is started."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.counting import Counts, WorkerConfig, build, ended


@pytest.fixture
async def table(tmp_path: Path) -> AsyncIterator[Counts]:
    """Give the counting table of an app that has not been started."""
    config = WorkerConfig("127.0.0.1:1", "unit", 2, str(tmp_path), "", store="memory", lateness=500)
    app, made = build(config, exit=ended)
    yield made
    made.forget_all()
    assert not app.started
