"""A rig for each test, with its own topics and workers, which end with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.rig import Rig

from tallystream.streams.kafka.settings import KafkaSettings


@pytest.fixture
async def rig(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> AsyncIterator[Rig]:
    """Provide a rig of two partitions whose topics exist."""
    made = Rig(kafka, prefix, tmp_path)
    await made.create()
    try:
        yield made
    finally:
        made.end()
