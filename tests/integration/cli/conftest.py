"""The command line on real Kafka, isolated from other tests: no run file, and a unique prefix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tallystream.cli import main
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics


class Said(NamedTuple):
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Cli = Callable[..., Said]


@pytest.fixture
def topics(prefix: str) -> Topics:
    return Topics(prefix, 3)


@pytest.fixture
def cli(
    kafka: KafkaSettings,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Cli:
    """Run `tallystream ...` on the test's Kafka and topics."""
    monkeypatch.setenv("TALLYSTREAM_PREFIX", prefix)
    monkeypatch.setenv("TALLYSTREAM_PARTITIONS", "3")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("TALLYSTREAM_ENDPOINT_URL", raising=False)

    def run(*args: str) -> Said:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*args, "--kafka", kafka.bootstrap, "--data-dir", str(tmp_path)])
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, out, err)

    return run
